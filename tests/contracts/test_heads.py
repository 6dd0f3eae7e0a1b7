"""What every head promises; a new head is tested the day its file lands."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from twofold import registry
from twofold.errors import BadData, NotFitted, UserError
from twofold.heads import _saving, _training, base
from twofold.heads._trained import Trained
from twofold.heads.base import Head

NAMES = registry.names("heads")


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Three classes a linear head can tell apart, with labels that are not 0, 1, 2."""
    chance = np.random.default_rng(0)
    labels = np.repeat([2, 5, 9], 40)
    centres = chance.standard_normal((10, 12)) * 3
    x = (centres[labels] + chance.standard_normal((120, 12))).astype(np.float32)
    order = chance.permutation(120)
    return x[order], labels[order]


class OnMaps:
    """A head that reads maps, given rows: every four columns become a map of 2 x 2 where that divides them.

    One that reads several gets that map as two blocks at two noise steps.
    """

    def __init__(self, inner: Head) -> None:
        self._inner = inner
        self._maps = _several if inner.several else _maps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def fit(self, x: Any, y: Any, val: Any = None) -> Any:
        self._inner.fit(self._maps(x), y, val=None if val is None else (self._maps(val[0]), val[1]))
        return self

    def scores(self, x: Any) -> Any:
        return self._inner.scores(self._maps(x))

    def predict(self, x: Any) -> Any:
        return self._inner.predict(self._maps(x))

    def settled(self) -> Any:
        return OnMaps(self._inner.settled())


def _maps(x: np.ndarray) -> np.ndarray:
    side = 2 if x.shape[1] % 4 == 0 else 1
    return x.reshape(len(x), -1, side, side) if x.ndim == 2 else x


def _several(x: np.ndarray) -> np.ndarray:
    maps = _maps(x)
    return base.side_by_side({f"b{b}_t{t}_p0": maps * b + t for b in (1, 2) for t in (5, 9)}) if maps.ndim == 4 else x


def made(name: str) -> Any:
    head = base.load(name)
    return OnMaps(head) if head.maps or head.several else head


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    short = "rate=0.01&updates=100"
    small = {
        "linear": f"linear?{short}",
        "mlp": f"mlp?{short}&hidden=32",
        "cnn": f"cnn?{short}&decay=0.1&width=16&layers=1",
        "attention": "attention?rate=0.01&decay=0.1&updates=60&tokenizer=p2&width=16",
        "difformer": "difformer?rate=0.02&decay=0.1&epochs=40&updates=40&width=8&blocks=1",
    }
    return small.get(request.param, request.param)


@pytest.fixture
def head(name: str) -> Any:
    return made(name)


def test_learns(head: Head, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = blobs
    head.fit(x[:80], y[:80], val=(x[80:100], y[80:100]))
    assert head.classes_.tolist() == [2, 5, 9]
    scores = head.scores(x[100:])
    assert scores.shape == (20, 3) and scores.dtype == np.float32
    assert (head.predict(x[100:]) == y[100:]).mean() > 0.9


def test_is_no_better_than_chance_on_noise(head: Head, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    chance = np.random.default_rng(1)
    x = chance.standard_normal((200, 12)).astype(np.float32)
    y = chance.integers(0, 3, 200)
    head.fit(x[:100], y[:100])
    assert 0.15 < (head.predict(x[100:]) == y[100:]).mean() < 0.55


def test_batching_does_not_change_the_answer(head: Head, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = blobs
    head.fit(x, y)
    np.testing.assert_allclose(head.scores(x)[:7], head.scores(x[:7]), rtol=1e-4, atol=1e-5)


def test_order_of_rows_does_not_matter(name: str, head: Head, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = blobs
    first = head.fit(x, y).scores(x[:9])
    second = made(name).fit(x[::-1], y[::-1]).scores(x[:9])
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)


def test_scale_and_shift_of_all_features_do_not_matter(
    name: str, head: Head, blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    x, y = blobs
    first = head.fit(x, y).predict(x)
    second = made(name).fit(100 * x + 7, y).predict(100 * x + 7)
    assert (first == second).mean() > 0.97


def test_few_rows_of_many_columns(head: Head) -> None:
    chance = np.random.default_rng(0)
    y = np.array([0, 0, 1, 1])
    x = chance.standard_normal((4, 50)).astype(np.float32) + 3 * y[:, None]
    assert (head.fit(x, y).predict(x) == y).all()


def test_constant_columns_do_no_harm(head: Head, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = blobs
    padded = np.concatenate([x, np.full((len(x), 3), 4.0, np.float32)], 1)
    assert (head.fit(padded, y).predict(padded) == y).mean() > 0.9
    assert np.isfinite(head.scores(padded)).all()


def test_settled_keeps_what_val_chose(head: Head, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = blobs
    head.fit(x[:80], y[:80], val=(x[80:], y[80:]))
    again = head.settled().fit(x[:80], y[:80])
    assert again.choice == head.choice
    np.testing.assert_allclose(again.scores(x), head.scores(x), rtol=1e-3, atol=1e-3)


def test_what_is_saved_and_restored_gives_the_same_scores(
    name: str, head: Any, blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    """Through the bytes of a safetensors file and of JSON; nothing that `fit` learned is lost."""
    x, y = blobs
    head.fit(x[:80], y[:80], val=(x[80:], y[80:]))
    tensors, told = _saving.learned(getattr(head, "_inner", head))
    kept, text = safetensors.torch.save(tensors), json.dumps(told)
    again = _saving.restored(name, safetensors.torch.load(kept), json.loads(text))
    again = OnMaps(again) if again.maps or again.several else again
    np.testing.assert_array_equal(again.scores(x), head.scores(x))
    assert again.classes_.tolist() == [2, 5, 9] and again.choice == head.choice
    assert again.settled().fit(x, y).classes_.tolist() == [2, 5, 9]


def test_the_loss_of_answers_that_are_right_and_sure_is_small(head: Head, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    """Scores of every kind lie on the scale of class indicators when they are judged."""
    x, y = blobs
    scores = head.fit(x, y, val=(x, y)).scores(x)
    even = np.square(np.eye(3) - 1 / 3).mean()
    assert 0 <= head.loss(scores, y) < even / 3
    # Labels that are wrong, and labels that it does not know, cost more.
    wrong = np.array([5, 9, 2])[np.searchsorted([2, 5, 9], y)]
    assert head.loss(scores, wrong) > even
    assert head.loss(scores, np.full_like(y, 7)) > head.loss(scores, y)


def test_a_class_that_val_has_and_train_lacks_is_only_wrong(head: Head, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = blobs
    known = y != 9
    head.fit(x[known], y[known], val=(x, y))
    assert set(head.predict(x)) <= {2, 5}


def test_asked_before_it_learned(head: Head) -> None:
    with pytest.raises(NotFitted, match=r"Call fit\(x, y\) first"):
        head.scores(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.array([[1.0, np.nan], [0, 1]]), [0, 1], "1 of 2 feature rows"),
        (np.zeros((2, 3, 4)), [0, 1], "needs rows|needs maps|several maps"),
        (np.zeros((2, 3)), [0, 1, 1], "2 feature rows and 3 labels"),
        (np.zeros((2, 3)), [1, 1], "labels are the same"),
        (np.zeros((2, 3)), [0.5, 1.5], "whole numbers"),
    ],
)
def test_wrong_input_is_one_clear_line(head: Head, x: np.ndarray, y: list[float], says: str) -> None:
    with pytest.raises(BadData, match=says):
        head.fit(x, y)


def test_log_odds_are_judged_as_probabilities() -> None:
    """Further from the boundary is surer, not worse."""
    head = base.load("logistic").fit(np.array([[0.0], [1.0], [0.1], [0.9]]), np.array([0, 1, 0, 1]))
    sure, surer = (np.array([[m, -m], [-m, m]], np.float32) for m in (1, 10))
    found = [head.loss(scores, [0, 1]) for scores in (sure, surer)]
    assert found == pytest.approx([(1 / (1 + np.exp(2))) ** 2, 0], abs=1e-6)


P2_BLOCKS = {19: (1024, 8, 8), 24: (1024, 16, 16), 30: (512, 64, 64)}


@pytest.mark.parametrize(
    ("name", "shape", "millions"),
    [
        *[("linear", (1024 * d * d,), m) for d, m in ((1, 1.025), (2, 4.097), (4, 16.385), (8, 65.537), (16, 262.145))],
        *[(f"attention?blocks={n}", (1024, 16, 16), m) for n, m in enumerate((13.62, 26.21, 38.81, 51.40, 63.99), 1)],
        ("attention?tokenizer=p2", (1024, 16, 16), 27.786216),
        ("difformer", {f"b{b}_t{t}_p0": shape for t in (90, 150, 300) for b, shape in P2_BLOCKS.items()}, 31.802344),
        ("mlp", (1024,), 4.15), ("mlp", (4096,), 10.44), ("mlp?hidden=(2048, 2048)", (4096,), 14.64),
    ],
)  # fmt: skip
def test_parameters_are_those_of_the_papers(name: str, shape: Any, millions: float) -> None:
    """Counted for 1000 classes: PAPER.md 1.4 and 1.5."""
    head = base.load(name)
    assert isinstance(head, Trained)
    with torch.device("meta"):
        count = sum(p.numel() for p in head.network(shape, 1000).parameters())
    digits = len(str(millions).partition(".")[2])
    assert round(count / 1e6, max(digits, 2)) == millions


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("linear?rte=1", "No setting of head linear 'rte'. Did you mean 'rate'"),
        ("linear?recipe=best", "No recipe 'best'. There is: paper, strong"),
        ("attention?width=64", "as wide as the map it reads, so width means nothing to it"),
        ("attention?tokenizer=p3", "No tokenizer of the attention head 'p3'"),
        ("linea", "Did you mean 'linear'"),
        ("difformer?width=0", "width of DifFormer must be a whole number of 1 or more, not 0"),
        ("ridge?strengths=(0,1)", r"strengths of ridge must be positive numbers, as in .* not \(0, 1\)"),
        ("logistic?strengths=1", "strengths of logistic must be positive numbers"),
        ("attention?blocks=1.5", "blocks of Attention must be a whole number of 1 or more, not 1.5"),
    ],
)
def test_settings_behind_a_name_are_checked(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        base.load(name)


@pytest.mark.parametrize("name", ["linear", "mlp?hidden=16", "cnn?width=8", "attention?tokenizer=p2&width=8"])
def test_candidates_trained_together_are_those_trained_alone(name: str, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = blobs
    settings = f"{name}{'&' if '?' in name else '?'}epochs=2&updates=20"
    if base.load(name).maps:
        x = x[:, :, None, None] * np.ones((1, 1, 2, 2), x.dtype)
    together = base.load(settings).fit(x, y, val=(x, y))
    alone = together.settled().fit(x, y)
    assert isinstance(together, Trained) and isinstance(alone, Trained)
    for name, weights in together.weights_.items():
        torch.testing.assert_close(weights, alone.weights_[name], rtol=1e-4, atol=1e-6)


def test_weights_are_those_of_torchs_own_optimizers(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    """The stacked updates against torch.optim, on the same batches and rates."""
    x, y = torch.from_numpy(blobs[0]), torch.from_numpy(np.searchsorted([2, 5, 9], blobs[1]))
    for name, make in (("strong", torch.optim.AdamW), ("paper", torch.optim.SGD)):
        candidate = _training.Candidate(0.01, 0.3 if name == "strong" else 0.0)
        recipe = replace(_training.RECIPES[name], candidates=(candidate,), epochs=8, batch=32, updates=0)
        found = _training.train(
            lambda: torch.nn.Linear(12, 3), lambda wanted: (x[rows] for rows in wanted), y, recipe, seed=3
        )[0]
        torch.manual_seed(3)
        network = torch.nn.Linear(12, 3)
        decayed = [{"params": [network.weight]}, {"params": [network.bias], "weight_decay": 0.0}]
        optimizer = make(decayed, lr=0.01, weight_decay=candidate.decay)
        for done, rows in _training._batches(len(y), recipe, 3):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * recipe.rate(done)
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(x[rows]), y[rows], label_smoothing=recipe.smoothing)
            loss.backward()
            optimizer.step()
        torch.testing.assert_close(found["weight"], network.weight.detach(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found["bias"], network.bias.detach(), rtol=1e-4, atol=1e-6)


def test_the_papers_rates_are_the_heads_own(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    """PAPER.md 2: 1e-2 for linear, 5e-2 for attention and DifFormer, batches of 128, a tenth every 7 of 28 epochs."""
    x, y = blobs
    for name, rate in (("linear", 1e-2), ("attention", 5e-2), ("difformer", 5e-2)):
        small = {"linear": "", "attention": "&blocks=1", "difformer": "&width=16&blocks=1"}[name]
        assert made(f"{name}?recipe=paper&epochs=1{small}").fit(x, y).choice == {"rate": rate, "decay": 0.0}
    recipe = _training.RECIPES["paper"]
    assert (recipe.epochs, recipe.batch, recipe.smoothing, recipe.updates) == (28, 128, 0.0, 0)
    assert [recipe.rate((epoch + 0.5) / 28) for epoch in (0, 6, 7, 13, 14, 20, 21, 27)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


def bits(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four classes of two bits: one shows in block 1 at step 5 alone, the other in block 2 at step 9 alone."""
    chance = np.random.default_rng(seed)
    y = chance.integers(0, 4, rows)
    noise = {f"b{b}_t{t}_p0": chance.standard_normal((rows, 3, 2 * b, 2 * b)) for b in (1, 2) for t in (5, 9)}
    noise["b1_t5_p0"][:, 0] += 4 * (y // 2 - 0.5)[:, None, None]
    noise["b2_t9_p0"][:, 1] += 4 * (y % 2 - 0.5)[:, None, None]
    return base.side_by_side(noise), y


def test_difformer_joins_blocks_and_steps() -> None:
    x, y = bits(240, 0)
    head = base.load("difformer?width=8&blocks=1&rate=0.02&decay=0.1&epochs=60&updates=60").fit(x, y)
    test, answers = bits(120, 1)
    assert (head.predict(test) == answers).mean() > 0.9
    # The order of the maps is not part of what it learned: they are told apart by their names.
    turned = base.side_by_side({name: test[name] for name in reversed(test.dtype.names)})
    np.testing.assert_allclose(head.scores(turned), head.scores(test), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (["b1_t5_p0"], "got b1_t5_p0: it joins the maps of several blocks or noise steps. Give several --block or --t"),
        (["b1_t5_p0", "b2_t9_p0"], "reads every block at every noise step; block 1 is not"),
    ],
)
def test_difformer_needs_a_grid_of_maps(cells: list[str], says: str) -> None:
    maps = base.side_by_side({name: np.zeros((4, 3, 2, 2)) for name in cells})
    with pytest.raises(BadData, match=says):
        base.load("difformer?width=8").fit(maps, [0, 1, 0, 1])


def test_several_maps_given_to_a_head_of_one_are_one_clear_line() -> None:
    for name in ("ridge", "attention"):
        with pytest.raises(BadData, match="Features are 4 maps; this head reads one table"):
            base.load(name).fit(*bits(8, 0))
    with pytest.raises(BadData, match="must be of the same images; there are rows of a 2, b 3"):
        base.side_by_side({"a": np.zeros((2, 1, 1, 1)), "b": np.zeros((3, 1, 1, 1))})


def test_probabilities_are_probabilities_and_keep_the_order(head: Head, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = blobs
    scores = head.fit(x, y).scores(x)
    chances = head.probabilities(scores)
    assert (chances >= 0).all() and chances.sum(1) == pytest.approx(1)
    assert (chances.argmax(1) == scores.argmax(1)).all()

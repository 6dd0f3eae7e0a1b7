"""What every head promises; a new head is tested the day its file lands."""

from __future__ import annotations

import numpy as np
import pytest

from twofold import registry
from twofold.errors import BadData, NotFitted
from twofold.heads import base
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


@pytest.fixture(params=NAMES)
def head(request: pytest.FixtureRequest) -> Head:
    return base.load(request.param)


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


def test_order_of_rows_does_not_matter(head: Head, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = blobs
    first = head.fit(x, y).scores(x[:9])
    second = type(head)().fit(x[::-1], y[::-1]).scores(x[:9])
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)


def test_scale_and_shift_of_all_features_do_not_matter(head: Head, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = blobs
    first = head.fit(x, y).predict(x)
    second = type(head)().fit(100 * x + 7, y).predict(100 * x + 7)
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
        (np.zeros((2, 3, 4)), [0, 1], "needs rows"),
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

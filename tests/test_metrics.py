"""Measures of predictions against what scikit-learn and scipy say, and files of predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from twofold import store
from twofold.analyses import base as analyses
from twofold.errors import BadRun
from twofold.steps import _metrics, _trials
from twofold.steps._trials import Predictions

CLASSES, IMAGES, SEEDS = 8, 300, 2


def tables(seed: int) -> dict[str, store.Table]:
    """Features of classes that overlap, so that no head is right everywhere."""
    chance = np.random.default_rng(seed)
    found = {}
    for split, count in (("train", 200), ("val", 80), ("test", IMAGES)):
        y = np.random.default_rng(len(split)).integers(0, CLASSES, count)
        x = 2 * np.eye(CLASSES, dtype=np.float32)[y] + chance.standard_normal((count, CLASSES)).astype(np.float32)
        found[split] = store.Table(x, y, np.arange(count))
    return found


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    return _trials.run(lambda seed: [tables(seed)], "ridge", 0, range(SEEDS))


def test_measures_are_those_of_scikit_learn(predictions: Predictions) -> None:
    found = {m.name: m for m in _metrics.measure(predictions)}
    assert set(found) == {"top1", "top5", "mean_per_class", "calibration_error"}
    labels, seeds = predictions.labels, range(SEEDS)
    scores = [_head_scores(seed) for seed in seeds]
    assert found["top1"].per_seed == pytest.approx([top_k_accuracy_score(labels, s, k=1) for s in scores])
    assert found["top5"].per_seed == pytest.approx([top_k_accuracy_score(labels, s, k=5) for s in scores])
    balanced = [balanced_accuracy_score(labels, predictions.predicted[s]) for s in seeds]
    assert found["mean_per_class"].per_seed == pytest.approx(balanced)
    counts = sum(confusion_matrix(labels, predictions.predicted[s]) for s in seeds)
    assert (_metrics.confusion(predictions, CLASSES) == counts).all()
    for m in found.values():
        assert m.low <= m.value <= m.high and m.value == pytest.approx(np.mean(m.per_seed))
        assert 0.01 < m.high - m.low < 0.3


def _head_scores(seed: int) -> np.ndarray:
    """The scores that `_trials.run` decided by: ridge, chosen on val, refitted on train and val."""
    from twofold.heads import base as heads

    train, val, test = (tables(seed)[split] for split in ("train", "val", "test"))
    head = heads.load("ridge").fit(train.x, train.y, val=(val.x, val.y)).settled()
    return head.fit(np.concatenate([train.x, val.x]), np.concatenate([train.y, val.y])).scores(test.x)


def made(confidence: list[float], right: list[bool]) -> Predictions:
    """One seed, two classes, labels all 0."""
    guess = np.where(right, 0, 1)[None]
    return Predictions(
        np.arange(len(right)), np.zeros(len(right), np.int64), np.array([0]), guess,
        np.array([confidence], np.float32), guess, np.array(2), np.array([1.0]), np.array(["{}"]),
    )  # fmt: skip


def test_the_calibration_error_is_the_mean_distance_of_confidence_to_accuracy() -> None:
    # Two bins: 0.6 sure and right half of the time, 0.9 sure and always right: (0.1 * 2 + 0.1 * 4) / 6 apart.
    found = {
        m.name: m.value for m in _metrics.measure(made([0.6, 0.6, 0.9, 0.9, 0.9, 0.9], [True, False, *[True] * 4]))
    }
    assert found["calibration_error"] == pytest.approx(0.1) and "top5" not in found
    # Distances within a bin cancel, those of different bins do not.
    two = {m.name: m.value for m in _metrics.measure(made([0.5, 0.95], [True, False]))}
    assert two["calibration_error"] == pytest.approx((0.5 + 0.95) / 2)


def test_a_label_that_no_head_knows_is_wrong_and_last() -> None:
    unknown = tables(0)
    unknown["test"] = store.Table(unknown["test"].x, np.full(IMAGES, 99), unknown["test"].index)
    found = _trials.run(lambda _: [unknown], "ridge", 0, [0])
    assert not found.right.any() and (found.rank == CLASSES).all()


def test_votes_are_the_mean_of_probabilities() -> None:
    """Heads that know different halves of the classes are together better than each."""
    left, right = tables(0), tables(0)
    for split in left:
        table = left[split]
        for one, columns in ((left, slice(4, 8)), (right, slice(0, 4))):
            x = table.x.copy()
            x[:, columns] = 0
            one[split] = store.Table(x, table.y, table.index)
    share = {n: _trials.run(lambda _, v=v: v, "logistic", 0, [0]).right.mean() for n, v in
             {"left": [left], "right": [right], "both": [left, right]}.items()}  # fmt: skip
    assert share["both"] > max(share["left"], share["right"]) + 0.1
    same = _trials.run(lambda _: [left, left], "logistic", 0, [0])
    assert (same.predicted == _trials.run(lambda _: [left], "logistic", 0, [0]).predicted).all()


def test_predictions_come_back_as_they_were_and_a_damaged_file_is_one_line(
    predictions: Predictions, tmp_path: Path
) -> None:
    path = _trials.path_of(tmp_path, "run:runs/digits", "attention?blocks=2")
    predictions.save(path)
    again = _trials.load(path)
    for name, values in vars(predictions).items():
        np.testing.assert_array_equal(getattr(again, name), values)
    whole = path.read_bytes()
    for damage in (b"", b"{}", whole[: len(whole) // 2]):
        path.write_bytes(damage)
        with pytest.raises(BadRun, match="cannot be read"):
            _trials.load(path)
    np.savez(path, index=np.array([object()], dtype=object))  # a pickle, which is never opened
    with pytest.raises(BadRun, match="cannot be read"):
        _trials.load(path)


def paired(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float, float]:
    (score,) = analyses.load("paired").measure({"first": first, "second": second})
    assert score.low is not None and score.high is not None
    return score.value, score.low, score.high, score.about["p"]


@pytest.mark.parametrize(("better", "worse"), [(3, 12), (20, 31), (5, 5), (0, 8)])
def test_the_paired_test_of_one_seed_is_mcnemars(better: int, worse: int) -> None:
    first, second = np.ones((200, 1)), np.ones((200, 1))
    first[:better], second[better : better + worse] = 0, 0
    value, low, high, p = paired(first, second)
    assert value == pytest.approx((better - worse) / 200) and low <= value <= high
    assert p == pytest.approx(binomtest(better, better + worse, 0.5).pvalue, abs=0.015)


def test_pairs_find_what_intervals_beside_one_another_do_not() -> None:
    """Answers that differ on few images: unpaired, 4 points of 200 are noise."""
    chance = np.random.default_rng(0)
    first = (chance.random((200, 1)) < 0.7).astype(float)
    second = first.copy()
    second[np.flatnonzero(first)[:9]] = 0
    value, _, high, p = paired(first, second)
    assert p < 0.01 and high < 0 and value == pytest.approx(-0.045)
    assert paired(first, first)[3] == 1


def test_chance_alone_is_found_rarely() -> None:
    chance = np.random.default_rng(1)
    found = [paired(*(chance.random((2, 60, 3)) < 0.8).astype(float))[3] for _ in range(100)]
    assert 0 <= np.mean([p < 0.05 for p in found]) < 0.12

"""Distances of features against other ways to compute them, their sums and intervals against what they stand for."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity import metric_fid, metric_kid, metric_prc

from twofold.analyses import base
from twofold.analyses.frechet import Statistics, Transport, distance, statistics
from twofold.errors import BadData

SHAPES = {"many": (400, 500, 30), "few": (40, 60, 90), "mixed": (40, 500, 60)}  # N, M, D


def features(shape: str, *, apart: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """As networks give them: correlated, not negative, some columns always zero."""
    n, m, d = SHAPES[shape]
    chance = np.random.default_rng(0)
    mix = chance.normal(size=(d, d)) / np.sqrt(d)
    mix[:, :3] = 0
    return (chance.normal(size=(n, d)) @ mix + apart * mix.any(0)).clip(0), (chance.normal(size=(m, d)) @ mix).clip(0)


def by_sqrtm(a: np.ndarray, b: np.ndarray) -> float:
    """The formula as most implementations write it."""
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # singular; the trace is right all the same
        root = scipy.linalg.sqrtm(first @ second).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_distance_is_that_of_scipys_sqrtm(shape: str) -> None:
    a, b = features(shape)
    expected = by_sqrtm(a, b)
    assert expected > 0.1
    assert distance(Statistics.of(a), Statistics.of(b)) == pytest.approx(expected, abs=1e-3, rel=1e-5)
    assert Transport.between(Statistics.of(a), Statistics.of(b)).distance == pytest.approx(expected, abs=1e-3, rel=1e-5)


def test_normal_distributions_on_a_line_are_as_far_apart_as_on_paper() -> None:
    chance = np.random.default_rng(0)
    a, b = chance.normal(1, 2, (300, 1)), chance.normal(0, 3, (300, 1))
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert distance(Statistics.of(a), Statistics.of(b)) == pytest.approx(expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_distance_is_a_distance(shape: str) -> None:
    a, b = map(Statistics.of, features(shape))
    assert distance(a, b) == pytest.approx(distance(b, a))
    assert 0 <= distance(a, a) < 1e-6 < distance(a, b)


def test_statistics_add_up_however_they_are_cut() -> None:
    x = features("many")[0] + 1e4  # far from zero, where sums of squares would cancel
    whole = Statistics.of(x)
    for cuts in ([1], [100, 250], range(1, 40)):
        found = statistics(np.split(x, list(cuts)))
        assert found.count == len(x)
        np.testing.assert_allclose(found.mean, whole.mean)
        np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_standard_error_is_that_of_leaving_each_image_out(shape: str) -> None:
    a, b = (x[:50] for x in features(shape))
    found = Transport.between(Statistics.of(a), Statistics.of(b)).standard_error(np.split(a, [7]), [b])
    without = [
        [distance(*(Statistics.of(np.delete(x, k, 0) if x is cut else x) for x in (a, b))) for k in range(len(cut))]
        for cut in (a, b)
    ]
    jackknife = np.sqrt(sum((len(each) - 1) * np.var(each) for each in without))
    assert found == pytest.approx(jackknife, rel=0.15)


@pytest.mark.parametrize("apart", [0.0, 0.5])
def test_intervals_are_as_wide_as_distances_of_new_images_differ(apart: float) -> None:
    chance, found, errors = np.random.default_rng(0), [], []
    for _ in range(60):
        a, b = chance.normal(apart, 1, (300, 8)).clip(0), chance.normal(0, 1, (300, 8)).clip(0)
        transport = Transport.between(Statistics.of(a), Statistics.of(b))
        found.append(transport.distance)
        errors.append(transport.standard_error([a], [b]))
    # Where nothing sets the two apart, the derivative is noise as well, and intervals are wider than need be.
    assert 0.8 < np.mean(errors) / np.std(found) < (1.25 if apart else 2.2)


def test_what_has_no_distance_is_one_line() -> None:
    x = features("many")[0]
    with pytest.raises(BadData, match="not finite"):
        Statistics.of(np.where(x > 2, np.nan, x))
    with pytest.raises(BadData, match="of 30 and of 29 numbers"):
        distance(Statistics.of(x), Statistics.of(x[:, 1:]))
    with pytest.raises(BadData, match="no features"):
        statistics([])
    with pytest.raises(BadData, match="One image has no covariance"):
        distance(Statistics.of(x), Statistics.of(x[:1]))
    with pytest.raises(BadData, match="shape"):
        Statistics.of(x[0])


def test_the_score_says_how_sure_it_is() -> None:
    a, b = features("many")
    (score,) = base.load("frechet").measure({"generated": a, "real": b})
    assert score.name == "fd" and score.value == pytest.approx(by_sqrtm(a, b), rel=1e-6) and score.n == len(a)
    assert score.low is not None and score.high is not None
    assert 0 < score.low < score.value < score.high < 2 * score.value


@pytest.mark.parametrize("shape", SHAPES)
def test_distance_is_that_of_torch_fidelity(shape: str) -> None:
    a, b = features(shape)
    theirs = metric_fid.fid_statistics_to_metric(
        *(metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)), verbose=False
    )
    assert distance(Statistics.of(a), Statistics.of(b)) == pytest.approx(theirs[metric_fid.KEY_METRIC_FID], abs=1e-3)


def kid(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    (score,) = base.load("kid").measure({"generated": a, "real": b})
    return score.value, score.about["standard_error"]


def test_kid_is_that_of_torch_fidelity() -> None:
    """Equal where its one subset is all images; else its subsets scatter around it."""
    a, b = features("many")
    a, b = a, b[: len(a)]
    tables = [torch.from_numpy(x) for x in (a, b)]
    whole = metric_kid.kid_features_to_metric(*tables, kid_subsets=1, kid_subset_size=len(a), verbose=False)
    assert kid(a, b)[0] == pytest.approx(whole[metric_kid.KEY_METRIC_KID_MEAN], rel=1e-6)
    some = metric_kid.kid_features_to_metric(*tables, kid_subsets=100, kid_subset_size=50, verbose=False)
    error = some[metric_kid.KEY_METRIC_KID_STD] / np.sqrt(100)
    assert kid(a, b)[0] == pytest.approx(some[metric_kid.KEY_METRIC_KID_MEAN], abs=4 * error)


def test_kid_is_zero_in_the_mean_where_nothing_differs_and_its_interval_fits() -> None:
    chance = np.random.default_rng(0)
    for apart in (0.0, 0.2):
        found = np.array([kid(chance.normal(apart, 1, (80, 8)), chance.normal(0, 1, (80, 8))) for _ in range(100)])
        value, spread, error = found[:, 0].mean(), found[:, 0].std(), found[:, 1].mean()
        assert abs(value) < 3 * spread / 10 if not apart else value > spread
        # As with the distance, wider than need be where nothing differs.
        assert 0.8 < error / spread < (1.25 if apart else 2.2)


@pytest.mark.parametrize("rows", [64, 2048])
def test_precision_and_recall_are_those_of_torch_fidelity(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = features("many", apart=0.6)
    monkeypatch.setattr("twofold.analyses.precision_recall.ROWS", rows)
    found = {s.name: s.value for s in base.load("precision_recall").measure({"generated": a, "real": b})}
    theirs = metric_prc.prc_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), verbose=False)
    assert 0.05 < found["precision"] < 0.95 and 0.05 < found["recall"] < 0.95
    assert found == {name: pytest.approx(theirs[name], abs=1e-6) for name in ("precision", "recall")}


def test_one_image_over_and_over_looks_real_and_covers_nothing() -> None:
    b = features("many")[1] + 50.0
    same = np.repeat(b[:1], 30, 0)
    found = {s.name: s.value for s in base.load("precision_recall").measure({"generated": same, "real": b})}
    assert found == {"precision": 1.0, "recall": pytest.approx(1 / len(b))}
    assert {s.value for s in base.load("precision_recall").measure({"generated": same, "real": same})} == {1.0}


def test_an_image_lies_in_the_balls_of_its_copies() -> None:
    """They have no radius, but for rounding."""
    points = np.random.default_rng(0).normal(size=(40, 300)) + 3
    copies = np.repeat(points, 5, 0)
    found = base.load("precision_recall").measure({"generated": points[::-1], "real": copies})
    assert [s.value for s in found] == [1.0, 1.0]

"""The Frechet distance against other ways to compute it, and its sums and interval against what they stand for."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg

from twofold.analyses import frechet
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
    (score,) = frechet.Frechet().measure({"generated": a, "real": b})
    assert score.name == "fd" and score.value == pytest.approx(by_sqrtm(a, b), rel=1e-6) and score.n == len(a)
    assert score.low is not None and score.high is not None
    assert 0 < score.low < score.value < score.high < 2 * score.value

"""CKA against its textbook formula, and the properties that make it a similarity."""

from __future__ import annotations

import numpy as np
import pytest

from twofold.analyses import cka

WIDTHS = (3, 17, 200)


def tables(rows: int = 60, seed: int = 0) -> list[np.ndarray]:
    """Tables of different widths and means that share some of what they say, as float16 stores hold them.

    The seed is of the images; what the tables make of them stays the same.
    """
    chance, network = np.random.default_rng(seed), np.random.default_rng(7)
    shared = chance.normal(size=(rows, 5))
    seen = [shared @ network.normal(size=(5, w)) + 40 * network.normal() for w in WIDTHS]
    return [(table + chance.normal(size=table.shape)).astype(np.float16) for table in seen]


def song(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. 2012, eq. 5, on whole Gram matrices, term by term."""
    k, m = (t.astype(np.float64) @ t.astype(np.float64).T for t in (x, y))
    for gram in (k, m):
        np.fill_diagonal(gram, 0)
    n, one = len(k), np.ones(len(k))
    crossed = one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    return float((np.trace(k @ m) + crossed) / (n * (n - 3)))


def naive(x: np.ndarray, y: np.ndarray) -> float:
    """Kornblith et al. 2019, eq. 3, with that."""
    return song(x, y) / float(np.sqrt(song(x, x) * song(y, y)))


def matrix(given: list[np.ndarray], batch: int = 10**6) -> np.ndarray:
    return cka.of_tables(given, batch).cka()


def test_one_minibatch_of_all_rows_is_the_naive_computation() -> None:
    given = tables()
    expected = [[naive(x, y) for y in given] for x in given]
    np.testing.assert_allclose(matrix(given), expected, atol=1e-6)


def test_hsic_of_pairs_is_the_naive_one() -> None:
    for rows in (4, 5, 31):
        given = tables(rows)
        found = cka.hsic(np.stack([cka.centred_gram(table) for table in given]), rows)
        np.testing.assert_allclose(found, [[song(x, y) for y in given] for x in given], rtol=1e-6)


def test_minibatches_are_averages_of_the_naive_hsic() -> None:
    given = tables(70)
    both = cka.Sums(3)
    for rows in (slice(0, 35), slice(35, 70)):
        both.add(np.stack([cka.centred_gram(t[rows]) for t in given]), 35)
    np.testing.assert_allclose(both.cka(), matrix(given, 35), atol=1e-12)
    assert not np.allclose(matrix(given, 35), matrix(given), atol=1e-6)


@pytest.mark.parametrize("batch", [10, 10**6])
def test_symmetric_and_one_on_itself(batch: int) -> None:
    found = matrix(tables(), batch)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diagonal(found), 1)
    twins = matrix([tables()[1], tables()[1].copy()], batch)
    np.testing.assert_allclose(twins, 1, atol=1e-12)


@pytest.mark.parametrize("batch", [10, 10**6])
def test_rotation_scale_and_shift_change_nothing(batch: int) -> None:
    x, y, _ = (table.astype(np.float64) for table in tables())
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(17, 17)))
    before = matrix([x, y], batch)[0, 1]
    for changed in (y @ turn, 1e4 * y, 1e-5 * y, y + 1000, -y @ turn * 7 + 3):
        assert matrix([x, changed], batch)[0, 1] == pytest.approx(before, abs=1e-9)
    assert matrix([x, y + 1e6], batch)[0, 1] == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("stretch", [1.0, 6e4, 6e-8])
def test_never_nan(stretch: float) -> None:
    dead = np.full((12, 9), stretch)
    alone = np.zeros((12, 2))
    alone[3] = stretch
    given = [t.astype(np.float16) for t in (dead, np.zeros((12, 1)), alone, np.random.default_rng(0).random((12, 3)))]
    for batch in (4, 5, 12):
        found = matrix(given, batch)
        assert np.isfinite(found).all() and np.abs(found).max() <= 1
        assert not found[:2].any(), "what is the same for all images is like nothing"
        assert found[3, 3] == 1


def test_vanishing_numbers_are_like_nothing() -> None:
    for power in (-70, -78, -80, -85, -170):
        found = matrix([table.astype(np.float64) * 10.0**power for table in tables(12)], 6)
        assert np.isfinite(found).all() and set(np.diagonal(found)) <= {0.0, 1.0}


def test_independent_tables_are_not_alike_however_wide() -> None:
    """The biased estimate goes to 1 where there are more columns than rows; this one does not."""
    chance = np.random.default_rng(0)
    found = [matrix([chance.normal(size=(64, 2000)) for _ in range(2)], 16)[0, 1] for _ in range(20)]
    assert abs(np.mean(found)) < 0.02


def test_minibatches_aim_at_the_value_of_all_rows() -> None:
    given = tables(4000)
    sums = cka.of_tables(given, 32)
    whole = matrix(given)
    np.testing.assert_allclose(sums.cka(), whole, atol=0.02)
    low, high = sums.interval(lambda found: float(found[0, 2]))
    assert low is not None and high is not None and low < whole[0, 2] < high and high - low < 0.05


def test_intervals_hold_the_value_of_all_images_as_often_as_they_say() -> None:
    true = matrix(tables(3000, 99))[0, 1]
    ends = [cka.of_tables(tables(400, k), 16).interval(lambda found: float(found[0, 1])) for k in range(60)]
    held = sum(low < true < high for low, high in ends if low is not None and high is not None)
    assert 52 <= held <= 60  # 57 of 60 are 95 %; 52 or fewer come once in fifty times


def test_few_minibatches_give_no_interval() -> None:
    assert cka.of_tables(tables(40), 20).interval(lambda found: float(found[0, 1])) == (None, None)


@pytest.mark.parametrize(("rows", "least"), [(4, 4), (5, 4), (7, 4), (9, 4), (1000, 256), (513, 256), (10000, 256)])
def test_every_row_is_in_one_minibatch_of_no_fewer_rows(rows: int, least: int) -> None:
    found = cka.cuts(rows, least)
    assert [k for cut in found for k in range(rows)[cut]] == list(range(rows))
    sizes = [cut.stop - cut.start for cut in found]
    assert min(sizes) >= least and max(sizes) - min(sizes) <= 1

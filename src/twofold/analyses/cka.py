"""How alike two representations of the same images are: linear CKA, unbiased, in minibatches.

Kornblith et al. 2019 compare Gram matrices; Song et al. 2012, eq. 5, give the unbiased estimate of HSIC between two of
them; Nguyen et al. 2021, eq. 2, average it over minibatches, so that no Gram matrix of all images is needed.

A U-centred Gram matrix (Székely and Rizzo 2014, eq. 2.1) makes that estimate a plain product of vectors. So a table's
Gram matrices are made once, and all pairs of tables are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import final

import numpy as np
from numpy.typing import NDArray

from twofold.analyses.base import Analysis, Table
from twofold.records import Score

LEAST = 4  # rows of a minibatch: eq. 5 divides by n - 3
BATCH = 256
GROUPS = 20  # of minibatches, of which the jackknife leaves out one at a time
LEAST_GROUPS = 4
SMALLEST = 1e-150  # root of an HSIC; below it its square is no longer a normal number
LEVEL = 0.975  # of Student's t, for an interval of 95 %
Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def centred_gram(x: NDArray[np.floating]) -> Vector:
    """The U-centred Gram matrix of rows [n, ...] above its diagonal: float64 [n (n - 1) / 2], times sqrt(2).

    a_ij - sum_l a_il / (n - 2) - sum_k a_kj / (n - 2) + sum_kl a_kl / ((n - 1)(n - 2)), with a = x x' off the diagonal
    (Székely and Rizzo 2014, eq. 2.1). Products of such vectors are sums over all pairs i != j.
    """
    n = len(x)
    rows = x.reshape(n, -1).astype(np.float64)
    rows -= rows.mean(0)  # changes nothing but rounding: what all rows share is what U-centring takes away
    gram = rows @ rows.T
    np.fill_diagonal(gram, 0)
    sums = gram.sum(0)
    gram -= (sums[:, None] + sums[None, :]) / (n - 2) - sums.sum() / ((n - 1) * (n - 2))
    above: Vector = gram[np.triu(np.ones((n, n), dtype=bool), 1)]
    above *= np.sqrt(2)
    return above


def hsic(grams: Matrix, n: int) -> Matrix:
    """HSIC of all pairs of tables by Song et al. 2012, eq. 5: `centred_gram`s [M, P] of n rows -> [M, M]."""
    found: Matrix = grams @ grams.T / (n * (n - 3))
    return found


def alike(sums: Matrix) -> Matrix:
    """CKA of all pairs, [M, M] -> [M, M] in -1..1, from sums of HSIC over minibatches (Nguyen et al. 2021, eq. 2).

    A table whose rows are all the same is like nothing, not even itself: 0.
    """
    own = np.sqrt(np.diagonal(sums))
    alive = own > SMALLEST
    scale = np.where(alive, 1 / np.maximum(own, SMALLEST), 0)
    found: Matrix = np.clip(sums * np.outer(scale, scale), -1, 1)
    np.fill_diagonal(found, alive)
    return found


def cuts(rows: int, least: int) -> list[slice]:
    """Minibatches of at least `least` rows each and as equal as can be; all rows are in one of them."""
    edges = np.linspace(0, rows, max(1, rows // least) + 1).round().astype(int).tolist()
    return [slice(start, end) for start, end in pairwise(edges)]


@final
class Sums:
    """HSIC of all pairs of `tables` tables, summed over minibatches in `GROUPS` groups."""

    def __init__(self, tables: int) -> None:
        self._groups = np.zeros((GROUPS, tables, tables))
        self._count = 0

    def add(self, grams: Matrix, n: int) -> None:
        """One minibatch of n rows: a `centred_gram` of each table [M, P]. It weighs as many as it has rows."""
        self._groups[self._count % GROUPS] += n * hsic(grams, n)
        self._count += 1

    def cka(self) -> Matrix:
        """CKA of all pairs, [M, M]."""
        return alike(self._groups.sum(0))

    def interval(self, statistic: Callable[[Matrix], float]) -> tuple[float | None, float | None]:
        """The 95 % interval of a number made of `cka`: the jackknife over groups of minibatches (Efron 1981).

        None of too few minibatches.
        """
        from scipy.stats import t as student

        held = min(self._count, GROUPS)
        if held < LEAST_GROUPS:
            return None, None
        whole = self._groups.sum(0)
        left = np.array([statistic(alike(whole - group)) for group in self._groups[:held]])
        error = float(np.sqrt((held - 1) / held * np.sum((left - left.mean()) ** 2)))
        value = statistic(alike(whole))
        reach = error * float(student.ppf(LEVEL, held - 1))
        return value - reach, value + reach


def of_tables(tables: Sequence[NDArray[np.floating]], batch: int = BATCH) -> Sums:
    """Tables [N, ...] in memory, whose rows stand in random order; minibatches have at least `batch` rows."""
    sums = Sums(len(tables))
    for cut in cuts(len(tables[0]), batch):
        sums.add(np.stack([centred_gram(table[cut]) for table in tables]), cut.stop - cut.start)
    return sums


@final
class Cka(Analysis):
    """CKA of two tables of the same images, whatever their widths."""

    needs = ("first", "second")
    same = "rows"
    least = LEAST

    def measure(self, tables: Mapping[str, Table]) -> Iterator[Score]:
        """Yield the `cka` of `first` [N, D] and `second` [N, E]; rows are the same images in the same random order."""
        self.check(tables)
        pair = [np.asarray(tables[name], dtype=np.float64) for name in self.needs]
        sums = of_tables(pair)
        value, ends = float(sums.cka()[0, 1]), sums.interval(lambda found: float(found[0, 1]))
        about = {"estimate": "linear, unbiased", "batch": min(BATCH, len(pair[0]))}
        yield Score("cka", value, "given", len(pair[0]), (), *ends, about)


build = Cka

"""Kernel distance (KID): how far apart two sets of features are, by the means of a polynomial kernel of all pairs.

    mean k(x, x') + mean k(y, y') - 2 mean k(x, y),    k(x, y) = (x.y / D + 1)^3        (1)

over pairs of different images (Binkowski et al. 2018, arXiv 1801.01401, section 4). Its expectation does not depend on
the number of images, so that it may be negative where nothing sets the two sets apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from twofold.analyses.base import Analysis, Table, pieces
from twofold.records import Score

DEGREE = 3
ROWS = 2048  # of either set at a time
WITHIN = 1.96  # standard errors: the 95 % interval of a normal distribution


@final
class Kernel(Analysis):
    """The distance `kid` of two tables, of all pairs of images, with its interval."""

    needs = ("generated", "real")
    least = 2

    def measure(self, tables: Mapping[str, Table]) -> Iterator[Score]:
        """Yield `kid` of `generated` [N, D] and `real` [M, D].

        Usually (1) is averaged over random subsets of 1,000 images. Every pair is as likely as any other to be in one,
        so that the average estimates what is counted here without chance. The standard error is the first-order one of
        such means (Hoeffding 1948): each image's own part of (1) is known, and images are independent.
        """
        self.check(tables)
        a, b = (tables[name] for name in self.needs)
        own = {"generated": _without_itself(a) - _means(a, b), "real": _without_itself(b) - _means(b, a)}
        error = 2 * math.sqrt(sum(part.var() / len(part) for part in own.values()))
        value = float(sum(part.mean() for part in own.values()))
        about = {"interval": "first order", "standard_error": error}
        yield Score("kid", value, "all", len(a), (), value - WITHIN * error, value + WITHIN * error, about)


def _means(of: Table, to: Table) -> NDArray[np.float64]:
    """The kernel of each row of a table with a row of the other, in the mean: [N]."""
    found = [sum(_kernel(x @ y.T, x.shape[1]).sum(1) for y in pieces(to, ROWS)) / len(to) for x in pieces(of, ROWS)]
    return np.concatenate(found)


def _without_itself(of: Table) -> NDArray[np.float64]:
    """The kernel of each row with the others of its table, in the mean: [N]."""
    itself = np.concatenate([_kernel((x * x).sum(1), x.shape[1]) for x in pieces(of, ROWS)])
    others: NDArray[np.float64] = (_means(of, of) * len(of) - itself) / (len(of) - 1)
    return others


def _kernel(products: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (products / size + 1) ** DEGREE
    return found


build = Kernel

"""Precision and recall of generated images: how many look real, and how many real ones could have been generated.

A set of images covers a ball around each of them that reaches to its third neighbour. Precision is the share of
generated images that the real ones cover, recall the share of real ones that the generated ones cover (Kynkaanniemi
et al. 2019, arXiv 1904.06991, eq. 1 and 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from twofold.analyses.base import Analysis, Table, pieces
from twofold.records import Score
from twofold.results import bootstrap_interval

NEIGHBOUR = 3
ROWS = 2048  # of either set at a time


@final
class PrecisionRecall(Analysis):
    """The shares `precision` and `recall` of two tables."""

    needs = ("generated", "real")
    least = NEIGHBOUR + 1

    def measure(self, tables: Mapping[str, Table]) -> Iterator[Score]:
        """Yield `precision` of `generated` [N, D] and `recall` of `real` [M, D].

        Intervals are bootstraps over the images that are judged. Those that judge are not drawn again: drawn twice, an
        image would be its own neighbour and its ball too small.
        """
        self.check(tables)
        generated, real = (tables[name] for name in self.needs)
        about = {"neighbour": NEIGHBOUR, "interval": "bootstrap over the judged images"}
        for name, judged, judge in (("precision", generated, real), ("recall", real, generated)):
            inside = _covered(judged, judge)
            yield Score(name, float(inside.mean()), "all", len(inside), (), *bootstrap_interval(inside), about)


def _covered(judged: Table, judge: Table) -> NDArray[np.bool_]:
    """Which rows of a table lie in the ball of any row of the other: [N]."""
    centre = next(pieces(judge, ROWS)).mean(0)  # far from zero, distances would be differences of large numbers
    inside = np.zeros(len(judged), dtype=bool)
    start = 0
    for centres in pieces(judge, ROWS):
        radii = _radii(judge, centres - centre, start, centre)
        found = [(_squared(x - centre, centres - centre) <= radii).any(1) for x in pieces(judged, ROWS)]
        inside |= np.concatenate(found)
        start += len(centres)
    return inside


def _radii(judge: Table, centres: NDArray[np.float64], first: int, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """The squared distance of some rows, which begin at `first`, to their third neighbour in the table: [B]."""
    nearest = np.full((len(centres), NEIGHBOUR), np.inf)
    start = 0
    for others in pieces(judge, ROWS):
        apart = _squared(centres, others - centre)
        itself = np.arange(len(centres)) + first - start
        here = (itself >= 0) & (itself < len(others))
        apart[here, itself[here]] = np.inf
        nearest = np.partition(np.concatenate([nearest, apart], 1), NEIGHBOUR - 1, axis=1)[:, :NEIGHBOUR]
        start += len(others)
    radii: NDArray[np.float64] = nearest.max(1)
    return radii


def _squared(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances of all rows of two sets: [A, B]."""
    found: NDArray[np.float64] = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return found


build = PrecisionRecall

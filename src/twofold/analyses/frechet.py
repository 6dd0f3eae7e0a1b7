"""Frechet distance: how far apart two sets of features are, each taken as a normal distribution.

    |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1^1/2 S2 S1^1/2)^1/2)        (1)

for means m and covariances S (Dowson and Landau 1982; Heusel et al. 2017, arXiv 1706.08500, eq. 6). Means and
covariances are sums, so that features are needed a batch at a time and never all at once:

    data = statistics(batches)              # or Statistics.of(x) + Statistics.of(more)
    distance(statistics(others), data)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from twofold.analyses.base import Analysis, Table, pieces
from twofold.errors import BadData
from twofold.records import Score

Numbers = NDArray[np.float64]
WITHIN = 1.96  # standard errors: the 95 % interval of a normal distribution


@final
@dataclass(frozen=True, eq=False)
class Statistics:
    """What the distance needs to know of a set of features; those of two sets add up to those of both.

    Attributes:
        count: N.
        mean: float64 [D].
        scatter: float64 [D, D], the sum over rows of (x - mean)(x - mean)^T.
    """

    count: int
    mean: Numbers
    scatter: Numbers

    @classmethod
    def of(cls, rows: Any) -> Statistics:
        """Of rows [N, D] that are in memory: an array, or a tensor on the CPU.

        Raises:
            BadData: they are no such table, or hold a value that is not finite.
        """
        x = np.asarray(rows, dtype=np.float64)
        if x.ndim != 2 or not x.size:
            raise BadData(f"Features of shape {x.shape} have no mean and covariance. Give rows [N, D].")
        mean = x.mean(0)
        if not np.isfinite(mean).all():
            raise BadData("Features hold values that are not finite. Make them again, for instance with fp32.")
        x = x - mean
        return cls(len(x), mean, x.T @ x)

    def __add__(self, other: Statistics) -> Statistics:
        """Of both sets together (Chan, Golub and LeVeque 1983, eq. 2.1): no sum of squares that cancels."""
        _check_alike(self, other)
        count, apart = self.count + other.count, other.mean - self.mean
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return Statistics(count, self.mean + apart * (other.count / count), self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Numbers:
        """Unbiased, [D, D].

        Raises:
            BadData: there is one row only.
        """
        if self.count < 2:
            raise BadData("One image has no covariance. Give two or more, and better more than features have numbers.")
        return self.scatter / (self.count - 1)


def statistics(batches: Iterable[Any]) -> Statistics:
    """Of all batches of rows [B, D] together; memory does not grow with their number.

    Raises:
        BadData: there is none, or one cannot be used.
    """
    total: Statistics | None = None
    for batch in batches:
        found = Statistics.of(batch)
        total = found if total is None else total + found
    if total is None:
        raise BadData("There are no features. Give one batch of rows at least.")
    return total


def distance(a: Statistics, b: Statistics) -> float:
    """Formula (1), in float64.

    S1^1/2 S2 S1^1/2 and R^T S2 R have the same eigenvalues for every R with R R^T = S1, and both are symmetric: no
    root of a matrix that is not, as in most implementations. R has as many columns as S1 has rank; taken of the
    smaller set it leaves out directions in which there is nothing but rounding.

    Raises:
        BadData: of different sizes, or of less than two rows.
    """
    _check_alike(a, b)
    thin, wide = (a, b) if a.count <= b.count else (b, a)
    root = _root(thin)[0]
    values = np.linalg.eigvalsh(root.T @ wide.covariance @ root)
    return _distance(a, b, np.sqrt(values.clip(0)))


@final
class Frechet(Analysis):
    """The distance `fd` of two tables, with its interval over images."""

    needs = ("generated", "real")
    least = 2

    def measure(self, tables: Mapping[str, Table]) -> Iterator[Score]:
        """Yield `fd` of `generated` [N, D] and `real` [M, D].

        The interval is value +- 1.96 standard errors of the infinitesimal jackknife (Jaeckel 1972): formula (1) is
        differentiated by the weight of every image. A bootstrap would not do: images drawn twice narrow the
        covariances, so its distances lie above the value.
        """
        self.check(tables)
        generated, real = (statistics(pieces(tables[name])) for name in self.needs)
        transport = Transport.between(generated, real)
        error = transport.standard_error(pieces(tables["generated"]), pieces(tables["real"]))
        value, about = transport.distance, {"interval": "infinitesimal jackknife", "standard_error": error}
        low, high = max(value - WITHIN * error, 0.0), value + WITHIN * error
        yield Score("fd", value, "all", generated.count, (), low, high, about)


@final
@dataclass(frozen=True, eq=False)
class Transport:
    """The distance of two sets and how it changes with the weight of each image.

    The derivative of (1) by S1 is I - T, with T = S1^-1/2 (S1^1/2 S2 S1^1/2)^1/2 S1^-1/2 the map that carries the
    first normal distribution to the second; by S2 it is I - T^-1. With fewer images than features both act on the
    directions that the images span.

    Attributes:
        a, b: the two sets.
        distance: between them.
        there, back: [D, r], T = there there^T and T^-1 = back back^T.
    """

    a: Statistics
    b: Statistics
    distance: float
    there: Numbers
    back: Numbers

    @classmethod
    def between(cls, a: Statistics, b: Statistics) -> Transport:
        """Of two sets."""
        _check_alike(a, b)
        root, inverse = _root(a)
        values, vectors = np.linalg.eigh(root.T @ b.covariance @ root)
        kept = values > _rounding(values)
        roots, vectors = np.sqrt(values[kept]), vectors[:, kept]
        there, back = inverse @ vectors * np.sqrt(roots), root @ vectors / np.sqrt(roots)
        return cls(a, b, _distance(a, b, roots), there, back)

    def standard_error(self, a: Iterable[Any], b: Iterable[Any]) -> float:
        """Of the distance, from the rows of both sets in batches [B, D]."""
        parts = ((a, self.a, self.b, self.there), (b, self.b, self.a, self.back))
        return math.sqrt(sum(_weights(*part).var() / part[1].count for part in parts))


def _weights(batches: Iterable[Any], own: Statistics, other: Statistics, carried: Numbers) -> Numbers:
    """What each row adds to the distance when it weighs more, [N], up to a constant."""
    found = []
    for batch in batches:
        x = np.asarray(batch, dtype=np.float64) - own.mean
        found.append((x * x).sum(1) - ((x @ carried) ** 2).sum(1) + 2 * x @ (own.mean - other.mean))
    return np.concatenate(found)


def _distance(a: Statistics, b: Statistics, roots: Numbers) -> float:
    """Formula (1) from the square roots of the eigenvalues of its last term; rounding never makes it negative."""
    apart = a.mean - b.mean
    return max(float(apart @ apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * roots.sum()), 0.0)


def _root(of: Statistics) -> tuple[Numbers, Numbers]:
    """R [D, r] with R R^T the covariance, and its pseudo-inverse, transposed; r is the rank."""
    values, vectors = np.linalg.eigh(of.covariance)
    kept = values > _rounding(values)
    roots = np.sqrt(values[kept])
    return vectors[:, kept] * roots, vectors[:, kept] / roots


def _rounding(values: Numbers) -> float:
    """How large an eigenvalue may be that is none."""
    return float(len(values) * np.finfo(np.float64).eps * values.max(initial=0.0))


def _check_alike(a: Statistics, b: Statistics) -> None:
    if a.mean.shape != b.mean.shape:
        raise BadData(
            f"Features of {len(a.mean)} and of {len(b.mean)} numbers cannot be compared. Read both the same way."
        )


build = Frechet

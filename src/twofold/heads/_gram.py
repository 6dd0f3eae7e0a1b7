"""Products of scaled features with themselves, in which linear heads are solved.

With at least as many rows as columns these are X'X, summed over pieces of rows; with fewer rows XX', so that what is
solved is never larger than the smaller side. Sums are in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from twofold.heads._pieces import Source, doubled
from twofold.heads._standard import Scale

BLOCK = 256  # columns of X'X computed together; what lies below the diagonal is not computed


class Gram(Protocol):
    """Products of scaled training rows X [N, D], M = min(N, D) of them each way, and the centred indicators Y [N, K].

    Ridge regression of a penalty s is `weights` of (matrix + s I)^-1 target.

    Attributes:
        matrix: double [M, M]; only what stands on and above the diagonal is to be read.
        target: double [M, K].
    """

    @property
    def matrix(self) -> Tensor:
        """[M, M]."""

    @property
    def target(self) -> Tensor:
        """[M, K]."""

    def project(self, table: Source) -> Iterator[tuple[slice, Tensor]]:
        """Pieces of another table as rows that a solution [M, K] is multiplied with, double [n, M]."""

    def weights(self, solution: Tensor) -> Tensor:
        """A solution [M, K] as weights of the scaled columns [D, K]."""


def of(scale: Scale, table: Source, positions: Tensor, classes: int) -> Gram:
    """Of training rows [N, D] with class positions [N]."""
    n, d = table.shape
    return (Columns if d <= n else Rows).of(scale, table, positions, classes)


def unit(gram: Gram) -> float:
    """The mean eigenvalue, in which strengths are counted so that they mean the same for every N and D."""
    return max(float(gram.matrix.trace()) / len(gram.matrix), 1e-12)


@dataclass(frozen=True)
class Columns:
    """X'X and X'Y; a solution is the weights."""

    matrix: Tensor
    target: Tensor
    scale: Scale

    @classmethod
    def of(cls, scale: Scale, table: Source, positions: Tensor, classes: int) -> Columns:
        """One pass over the rows."""
        columns = table.shape[1]
        matrix = torch.zeros(columns, columns, dtype=torch.float64)
        sums = torch.zeros(classes, columns, dtype=torch.float64)
        for rows, x in doubled(scale.pieces(table)):
            sums.index_add_(0, positions[rows], x)
            for start in range(0, columns, BLOCK):
                matrix[start : start + BLOCK, start:].addmm_(x[:, start : start + BLOCK].T, x[:, start:])
        shares = torch.bincount(positions, minlength=classes) / len(positions)
        return cls(matrix, sums.T - torch.outer(sums.sum(0), shares.double()), scale)

    def project(self, table: Source) -> Iterator[tuple[slice, Tensor]]:
        """See `Gram`."""
        return doubled(self.scale.pieces(table, check=True))

    def weights(self, solution: Tensor) -> Tensor:
        """See `Gram`."""
        return solution


@dataclass(frozen=True)
class Rows:
    """XX' and Y; the weights are X' times a solution.

    Attributes:
        table: the training rows.
    """

    matrix: Tensor
    target: Tensor
    scale: Scale
    table: Source

    @classmethod
    def of(cls, scale: Scale, table: Source, positions: Tensor, classes: int) -> Rows:
        """One pass over the rows for every piece of them."""
        matrix = torch.empty(table.shape[0], table.shape[0], dtype=torch.float64)
        for rows, x in doubled(scale.pieces(table)):
            matrix[rows] = _against(x, scale, table)
        told = functional.one_hot(positions, classes).double()
        return cls(matrix, told - told.mean(0), scale, table)

    def project(self, table: Source) -> Iterator[tuple[slice, Tensor]]:
        """See `Gram`."""
        for rows, x in doubled(self.scale.pieces(table, check=True)):
            yield rows, _against(x, self.scale, self.table)

    def weights(self, solution: Tensor) -> Tensor:
        """See `Gram`; one pass over the training rows."""
        found = torch.zeros(self.table.shape[1], solution.shape[1], dtype=torch.float64)
        for rows, x in doubled(self.scale.pieces(self.table)):
            found += x.T @ solution[rows]
        return found


def _against(x: Tensor, scale: Scale, table: Source) -> Tensor:
    """Products of scaled rows x [n, D] with all scaled rows of a table, double [n, N]."""
    found = torch.empty(len(x), table.shape[0], dtype=torch.float64)
    for rows, other in doubled(scale.pieces(table)):
        found[:, rows] = x @ other.T
    return found

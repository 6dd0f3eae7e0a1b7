"""Scaled features along their principal directions: made once, they serve every strength of a linear head.

With at least as many rows as columns the directions come from X'X, which is summed over pieces of rows; with fewer
rows from XX'. Sums and decompositions are in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from twofold.heads._pieces import Source, doubled
from twofold.heads._standard import Scale

# Directions whose variance is below this share of the largest carry rounding alone.
NEGLIGIBLE = 1e-10
BLOCK = 256  # columns of X'X computed together; what lies below the diagonal is not computed


class Spectrum(Protocol):
    """Principal directions of scaled features X [N, D], R of them.

    Attributes:
        values: eigenvalues of X'X [R], those of directions without variance left out.
        unit: the mean eigenvalue, in which strengths are counted so that they mean the same for every N and D.
        moments: V'X'Y [R, K] with the centred indicators Y.
    """

    @property
    def values(self) -> Tensor:
        """[R]."""

    @property
    def unit(self) -> float:
        """Mean eigenvalue."""

    @property
    def moments(self) -> Tensor:
        """[R, K]."""

    def project(self, table: Source) -> Iterator[tuple[slice, Tensor]]:
        """Pieces of another table along the directions, double [n, R]."""

    def weights(self, along: Tensor) -> Tensor:
        """Weights along the directions [R, K] as weights of the scaled columns [D, K]."""


def of(scale: Scale, table: Source, positions: Tensor, classes: int) -> Spectrum:
    """Decompose training rows [N, D] with class positions [N]."""
    n, d = table.shape
    return (Tall if d <= n else Wide).of(scale, table, positions, classes)


@dataclass(frozen=True)
class Tall:
    """From X'X = V diag(e) V'; `basis` is V [D, R]."""

    values: Tensor
    unit: float
    moments: Tensor
    basis: Tensor
    scale: Scale

    @classmethod
    def of(cls, scale: Scale, table: Source, positions: Tensor, classes: int) -> Tall:
        """One pass over the rows."""
        columns = table.shape[1]
        gram = torch.zeros(columns, columns, dtype=torch.float64)
        sums = torch.zeros(classes, columns, dtype=torch.float64)
        for rows, x in doubled(scale.pieces(table)):
            sums.index_add_(0, positions[rows], x)
            for start in range(0, columns, BLOCK):
                gram[start : start + BLOCK, start:].addmm_(x[:, start : start + BLOCK].T, x[:, start:])
        unit = max(float(gram.trace()) / columns, 1e-12)
        # Only the upper triangle is read.
        values, vectors = torch.linalg.eigh(gram, UPLO="U")
        kept = values > values[-1] * NEGLIGIBLE
        shares = torch.bincount(positions, minlength=classes) / len(positions)
        basis = vectors[:, kept]
        moments = basis.T @ (sums.T - torch.outer(sums.sum(0), shares.double()))
        return cls(values[kept], unit, moments, basis, scale)

    def project(self, table: Source) -> Iterator[tuple[slice, Tensor]]:
        """See `Spectrum`."""
        for rows, x in doubled(self.scale.pieces(table, check=True)):
            yield rows, x @ self.basis

    def weights(self, along: Tensor) -> Tensor:
        """See `Spectrum`."""
        return self.basis @ along


@dataclass(frozen=True)
class Wide:
    """From XX' = U diag(e) U': the directions are V = X'U / sqrt(e), and are never written out.

    Attributes:
        table: the training rows.
        back: U / sqrt(e) [N, R].
    """

    values: Tensor
    unit: float
    moments: Tensor
    table: Source
    back: Tensor
    scale: Scale

    @classmethod
    def of(cls, scale: Scale, table: Source, positions: Tensor, classes: int) -> Wide:
        """One pass over the rows for every piece of them."""
        count = table.shape[0]
        gram = torch.empty(count, count, dtype=torch.float64)
        for rows, x in doubled(scale.pieces(table)):
            gram[rows] = _against(x, scale, table)
        unit = max(float(gram.trace()) / count, 1e-12)
        values, vectors = torch.linalg.eigh(gram)
        kept = values > values[-1] * NEGLIGIBLE
        values, vectors = values[kept], vectors[:, kept]
        root = values.sqrt()
        target = torch.nn.functional.one_hot(positions, classes).double()
        moments = root[:, None] * (vectors.T @ (target - target.mean(0)))
        return cls(values, unit, moments, table, vectors / root, scale)

    @property
    def coordinates(self) -> Tensor:
        """The training rows along the directions, X V = U sqrt(e) [N, R]."""
        return self.back * self.values

    def project(self, table: Source) -> Iterator[tuple[slice, Tensor]]:
        """See `Spectrum`."""
        for rows, x in doubled(self.scale.pieces(table, check=True)):
            yield rows, _against(x, self.scale, self.table) @ self.back

    def weights(self, along: Tensor) -> Tensor:
        """See `Spectrum`; one pass over the training rows."""
        inner = self.back @ along
        found = torch.zeros(self.table.shape[1], along.shape[1], dtype=torch.float64)
        for rows, x in doubled(self.scale.pieces(self.table)):
            found += x.T @ inner[rows]
        return found


def _against(x: Tensor, scale: Scale, table: Source) -> Tensor:
    """Products of scaled rows x [n, D] with all scaled rows of a table, double [n, N]."""
    found = torch.empty(len(x), table.shape[0], dtype=torch.float64)
    for rows, other in doubled(scale.pieces(table)):
        found[:, rows] = x @ other.T
    return found

"""Few rows of many columns along their principal directions, of which there are no more than rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from twofold.heads import _gram
from twofold.heads._pieces import Source
from twofold.heads._standard import Scale

# Directions whose variance is below this share of the largest carry rounding alone.
NEGLIGIBLE = 1e-10


@dataclass(frozen=True)
class Spectrum:
    """From XX' = U diag(e) U': the directions are V = X'U / sqrt(e), and are never written out.

    Attributes:
        values: e [R], those of directions without variance left out.
        back: U / sqrt(e) [N, R].
    """

    values: Tensor
    back: Tensor
    gram: _gram.Rows

    @classmethod
    def of(cls, scale: Scale, table: Source, positions: Tensor, classes: int) -> Spectrum:
        """Decompose training rows [N, D] with class positions [N]."""
        gram = _gram.Rows.of(scale, table, positions, classes)
        values, vectors = torch.linalg.eigh(gram.matrix)
        kept = values > values[-1] * NEGLIGIBLE
        values, vectors = values[kept], vectors[:, kept]
        return cls(values, vectors / values.sqrt(), gram)

    @property
    def coordinates(self) -> Tensor:
        """The training rows along the directions, X V = U sqrt(e) [N, R]."""
        return self.back * self.values

    def project(self, table: Source) -> Iterator[tuple[slice, Tensor]]:
        """Pieces of another table along the directions, double [n, R]."""
        for rows, x in self.gram.project(table):
            yield rows, x @ self.back

    def weights(self, along: Tensor) -> Tensor:
        """Weights along the directions [R, K] as weights of the scaled columns [D, K]."""
        return self.gram.weights(self.back @ along)

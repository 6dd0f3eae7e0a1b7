"""Scaling of features, shared by the heads, measured on the training rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.heads._pieces import ENTRIES, Source, pieces, product
from twofold.heads.base import Matrix


@dataclass(frozen=True)
class Scale:
    """Centred columns, divided by sqrt(own variance + typical variance).

    Plain standardising blows rounding noise up in columns that hardly vary (the rim of an image, a silent
    channel); adding the median variance keeps them small and hardly touches the others.

    Attributes:
        mean, factor: float32 [D].
    """

    mean: NDArray[np.float32]
    factor: NDArray[np.float32]

    @classmethod
    def of(cls, table: Source) -> Scale:
        """Measure training rows [N, D] in one pass; a value that is not finite is refused.

        Sums are taken about the mean of the first piece, so that a column far from zero loses no digits.
        """
        first: Tensor | None = None
        total, squares = (torch.zeros(table.shape[1], dtype=torch.float64) for _ in range(2))
        for _, x in pieces(table, check=True):
            first = x.mean(0, dtype=torch.float64).float() if first is None else first
            x -= first
            total += x.sum(0)
            squares += x.square_().sum(0)
        assert first is not None
        mean = total / table.shape[0]
        variance = (squares / table.shape[0] - mean.square()).clamp_(min=0).numpy()
        typical = float(np.median(variance)) or float(variance.mean()) or 1.0
        return cls((first + mean).float().numpy(), (1 / np.sqrt(variance + typical)).astype(np.float32))

    def pieces(
        self, table: Source, *, entries: int = ENTRIES, every: int = 1, check: bool = False
    ) -> Iterator[tuple[slice, Tensor]]:
        """As `_pieces.pieces`, scaled."""
        mean, factor = torch.from_numpy(self.mean), torch.from_numpy(self.factor)
        for rows, x in pieces(table, entries=entries, every=every, check=check):
            yield rows, x.sub_(mean).mul_(factor)

    def scores(self, table: Source, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> Matrix:
        """Scaled rows [N, D] times weight [D, K] and bias [K], float32 [N, K]."""
        scores = torch.empty(table.shape[0], len(bias))
        turned, offset = torch.from_numpy(weight).T.float().contiguous(), torch.from_numpy(bias).float()
        for rows, x in self.pieces(table, check=True):
            scores[rows] = product(x, turned) + offset
        found: Matrix = scores.numpy()
        return found


def validation_choice(per_setting: list[tuple[float, float]]) -> int:
    """The setting with the highest accuracy on val, ties to the lowest loss: position in a list of (accuracy, loss)."""
    return max(range(len(per_setting)), key=lambda k: (per_setting[k][0], -per_setting[k][1]))

"""Scaling of features, shared by the heads, measured on the training rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.errors import BadSetting
from twofold.heads._pieces import ENTRIES, Source, doubled, pieces
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
        """Measure training rows [N, D] in one pass; a value that is not finite is refused."""
        mean, variance = moments(table)
        typical = float(np.median(variance)) or float(variance.mean()) or 1.0
        return cls(mean.astype(np.float32), (1 / np.sqrt(variance + typical)).astype(np.float32))

    def pieces(
        self, table: Source, *, entries: int = ENTRIES, every: int = 1, check: bool = False
    ) -> Iterator[tuple[slice, Tensor]]:
        """As `_pieces.pieces`, scaled."""
        mean, factor = torch.from_numpy(self.mean), torch.from_numpy(self.factor)
        for rows, x in pieces(table, entries=entries, every=every, check=check):
            yield rows, x.sub_(mean).mul_(factor)

    def scores(self, table: Source, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> Matrix:
        """Scaled rows [N, D] times weight [D, K] and bias [K], float32 [N, K].

        Products are in double precision, so that a row's scores do not depend on the rows beside it.
        """
        scores = torch.empty(table.shape[0], len(bias))
        along, offset = torch.from_numpy(weight), torch.from_numpy(bias)
        for rows, x in doubled(self.pieces(table, check=True)):
            scores[rows] = (x @ along + offset).float()
        found: Matrix = scores.numpy()
        return found


def moments(table: Source) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of each column, or channel of maps, in one pass over rows [N, D] or [N, C, h, w].

    Sums are taken about the mean of the first piece, so that a column far from zero loses no digits.

    Raises:
        BadData: a value that is not finite.
    """
    channels, first = table.shape[1], torch.zeros(())
    total, squares = (torch.zeros(channels, dtype=torch.float64) for _ in range(2))
    for rows, piece in pieces(table, check=True):
        x = piece.view(len(piece), channels, -1)
        if rows.start == 0:
            first = x.mean((0, 2), dtype=torch.float64).float()
        x -= first[:, None]
        total += x.sum((0, 2))
        squares += x.square_().sum((0, 2))
    count = math.prod(table.shape) / channels
    mean = total / count
    variance = (squares / count - mean.square()).clamp_(min=0)
    return (first + mean).numpy(), variance.numpy()


def checked_strengths(head: str, strengths: tuple[float, ...]) -> tuple[float, ...]:
    """Strengths as they are, if they are positive numbers.

    Raises:
        BadSetting: they are not.
    """
    numbers = isinstance(strengths, tuple) and all(isinstance(s, (int, float)) for s in strengths)
    if not numbers or not strengths or not all(0 < s < math.inf for s in strengths):
        raise BadSetting(f"strengths of {head} must be positive numbers, as in strengths=(0.1,1), not {strengths!r}.")
    return strengths


def validation_choice(per_setting: list[tuple[float, float]]) -> int:
    """The setting with the highest accuracy on val, ties to the lowest loss: position in a list of (accuracy, loss)."""
    return max(range(len(per_setting)), key=lambda k: (per_setting[k][0], -per_setting[k][1]))

"""Scaling of features, shared by the heads, measured on the training rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    def of(cls, x: Matrix) -> Scale:
        """Measure training rows [N, D]."""
        mean = x.mean(0, dtype=np.float64)
        variance = np.square(x - mean.astype(np.float32)).mean(0, dtype=np.float64)
        typical = float(np.median(variance)) or float(variance.mean()) or 1.0
        return cls(mean.astype(np.float32), (1 / np.sqrt(variance + typical)).astype(np.float32))

    def __call__(self, x: Matrix) -> Matrix:
        """Scale rows [N, D]."""
        return (x - self.mean) * self.factor


def one_hot(positions: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Class positions [N] as indicator rows [N, K]."""
    return np.eye(classes)[positions]


def validation_choice(per_setting: list[tuple[float, float]]) -> int:
    """The setting with the highest accuracy on val, ties to the lowest loss: position in a list of (accuracy, loss)."""
    return max(range(len(per_setting)), key=lambda k: (per_setting[k][0], -per_setting[k][1]))

"""Standard scaling of features, shared by the heads: zero mean and unit variance on the training rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofold.heads.base import Matrix

# A column whose deviation is below this share of the typical column's carries rounding, not information.
NEGLIGIBLE = 1e-4


@dataclass(frozen=True)
class Scale:
    """What `of` measured, float32 [D] each."""

    mean: NDArray[np.float32]
    factor: NDArray[np.float32]

    @classmethod
    def of(cls, x: Matrix) -> Scale:
        """Measure training rows [N, D]; columns that hardly vary are silenced instead of blown up."""
        mean = x.mean(0, dtype=np.float64)
        deviation = np.sqrt(np.square(x - mean.astype(np.float32)).mean(0, dtype=np.float64))
        floor = NEGLIGIBLE * float(np.median(deviation)) if deviation.any() else 0.0
        kept = deviation > max(floor, 1e-12)
        factor = np.divide(1.0, deviation, where=kept, out=np.zeros_like(deviation))
        return cls(mean.astype(np.float32), factor.astype(np.float32))

    def __call__(self, x: Matrix) -> Matrix:
        """Scale rows [N, D]."""
        return (x - self.mean) * self.factor


def one_hot(positions: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Class positions [N] as indicator rows [N, K]."""
    return np.eye(classes)[positions]


def validation_choice(per_setting: list[tuple[float, float]]) -> int:
    """The setting with the highest accuracy on val, ties to the lowest loss: position in a list of (accuracy, loss)."""
    return max(range(len(per_setting)), key=lambda k: (per_setting[k][0], -per_setting[k][1]))

"""Ridge regression on class indicators: all strengths from one eigendecomposition."""

from __future__ import annotations

from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from twofold.heads import _spectrum
from twofold.heads._spectrum import Spectrum
from twofold.heads._standard import Scale, validation_choice
from twofold.heads.base import Head, Labels, Matrix, labelled, positions_of, table_of

# Relative to the mean eigenvalue of the scaled features' covariance, so that they mean the same for every D and N.
STRENGTHS = tuple(float(s) for s in np.logspace(-5, 2, 15))


@final
class Ridge(Head):
    """Least squares with a penalty, on standardised features.

    With X the scaled, centred features [N, D], Y the centred indicators [N, K] and s the strength times the mean
    eigenvalue, the weights are (X'X + s I)^-1 X'Y = V (V'X'Y / (e + s)) with X'X = V diag(e) V': after one
    eigendecomposition every strength costs a division and a product with a K-column matrix. X'X and X'Y are summed
    over pieces of rows in double precision.

    Args:
        strengths: the strengths to choose from on val; without val the middle one is taken.
    """

    def __init__(self, strengths: tuple[float, ...] = STRENGTHS) -> None:
        self.strengths = strengths

    def fit(self, x: ArrayLike, y: ArrayLike, *, val: tuple[ArrayLike, ArrayLike] | None = None) -> Self:
        """See `Head.fit`; val chooses the strength by accuracy, ties by squared error."""
        table, classes, positions = labelled(x, y)
        self.scale_ = Scale.of(table)
        self.bias_ = np.bincount(positions) / len(positions)
        spectrum = _spectrum.of(self.scale_, table, torch.from_numpy(positions), len(classes))
        self.strength_ = self._choose(spectrum, classes, val)
        self.weight_ = spectrum.weights(_shrunk(spectrum, self.strength_)).numpy()
        self.classes_ = classes
        return self

    def scores(self, x: ArrayLike) -> Matrix:
        """Predicted indicators, float32 [N, K]."""
        self.check_fitted()
        return self.scale_.scores(table_of(x), self.weight_, self.bias_)

    def settled(self) -> Ridge:
        """A ridge of the chosen strength."""
        self.check_fitted()
        return Ridge((self.strength_,))

    @property
    def choice(self) -> dict[str, Any]:
        """The strength."""
        return {"strength": self.strength_}

    def _choose(self, spectrum: Spectrum, classes: Labels, val: tuple[ArrayLike, ArrayLike] | None) -> float:
        if val is None or len(self.strengths) == 1:
            return self.strengths[len(self.strengths) // 2]
        table = table_of(val[0])
        positions, bias = torch.from_numpy(positions_of(val[1], classes)), torch.from_numpy(self.bias_)
        right, error = (np.zeros(len(self.strengths)) for _ in range(2))
        along = [_shrunk(spectrum, strength) for strength in self.strengths]
        columns = torch.arange(len(classes))
        for rows, x in spectrum.project(table):
            own = positions[rows]
            target = (own[:, None] == columns).double() - bias
            for k, weights in enumerate(along):
                guess = x @ weights
                right[k] += int(((guess + bias).argmax(1) == own).sum())
                error[k] += float((guess - target).square_().sum())
        judged = list(zip(right / table.shape[0], error / table.shape[0] / len(classes), strict=True))
        return self.strengths[validation_choice(judged)]


def _shrunk(spectrum: Spectrum, strength: float) -> Tensor:
    """The weights along the principal directions [R, K]."""
    return spectrum.moments / (spectrum.values + strength * spectrum.unit)[:, None]


build = Ridge

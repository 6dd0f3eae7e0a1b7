"""Ridge regression on class indicators: all strengths from one eigendecomposition."""

from __future__ import annotations

from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from twofold.heads._spectrum import Spectrum
from twofold.heads._standard import Scale, one_hot, validation_choice
from twofold.heads.base import Head, Labels, Matrix, examples, features

# Relative to the mean eigenvalue of the scaled features' covariance, so that they mean the same for every D and N.
STRENGTHS = tuple(float(s) for s in np.logspace(-5, 2, 15))


@final
class Ridge(Head):
    """Least squares with a penalty, on standardised features.

    With X the scaled, centred features [N, D], Y the centred indicators [N, K] and s the strength times the mean
    eigenvalue, the weights are (X'X + s I)^-1 X'Y = V (V'X'Y / (e + s)) with X'X = V diag(e) V': after one
    eigendecomposition every strength costs a division and a product with a K-column matrix.

    Args:
        strengths: the strengths to choose from on val; without val the middle one is taken.
    """

    def __init__(self, strengths: tuple[float, ...] = STRENGTHS) -> None:
        self.strengths = strengths

    def fit(self, x: ArrayLike, y: ArrayLike, *, val: tuple[ArrayLike, ArrayLike] | None = None) -> Self:
        """See `Head.fit`; val chooses the strength by accuracy, ties by squared error."""
        table, classes, positions = examples(x, y)
        self.scale_ = Scale.of(table)
        scaled = torch.from_numpy(self.scale_(table)).double()
        target = torch.from_numpy(one_hot(positions, len(classes)))
        self.bias_ = target.mean(0).numpy()
        spectrum = Spectrum.of(scaled)
        # V'X'Y, so that the weights for s are V (V'X'Y / (e + s)).
        moments = spectrum.projected.T @ (target - target.mean(0))
        self.strength_ = self._choose(spectrum, moments, classes, val)
        self.weight_ = (spectrum.basis @ _shrunk(spectrum, moments, self.strength_)).numpy()
        self.classes_ = classes
        return self

    def scores(self, x: ArrayLike) -> Matrix:
        """Predicted indicators, float32 [N, K]."""
        self.check_fitted()
        scores: Matrix = (self.scale_(features(x)) @ self.weight_ + self.bias_).astype(np.float32)
        return scores

    def settled(self) -> Ridge:
        """A ridge of the chosen strength."""
        self.check_fitted()
        return Ridge((self.strength_,))

    @property
    def choice(self) -> dict[str, Any]:
        """The strength."""
        return {"strength": self.strength_}

    def _choose(
        self, spectrum: Spectrum, moments: Tensor, classes: Labels, val: tuple[ArrayLike, ArrayLike] | None
    ) -> float:
        if val is None or len(self.strengths) == 1:
            return self.strengths[len(self.strengths) // 2]
        projected = torch.from_numpy(self.scale_(features(val[0]))).double() @ spectrum.basis
        labels = np.asarray(val[1])
        target = (labels[:, None] == classes).astype(np.float64) - self.bias_
        judged = []
        for strength in self.strengths:
            guess = (projected @ _shrunk(spectrum, moments, strength)).numpy()
            right = classes[(guess + self.bias_).argmax(1)] == labels
            judged.append((float(right.mean()), float(np.square(guess - target).mean())))
        return self.strengths[validation_choice(judged)]


def _shrunk(spectrum: Spectrum, moments: Tensor, strength: float) -> Tensor:
    """The weights along the principal directions [R, K]."""
    return moments / (spectrum.values + strength * spectrum.unit)[:, None]


build = Ridge

"""Ridge regression on class indicators: all strengths from one eigendecomposition."""

from __future__ import annotations

from typing import Any, Self, final

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from twofold.heads._standard import Scale, one_hot, validation_choice
from twofold.heads.base import Head, Matrix, examples, features

# Relative to the mean eigenvalue of the scaled features' covariance, so that they mean the same for every D and N.
STRENGTHS = tuple(float(s) for s in np.logspace(-5, 2, 15))


@final
class Ridge(Head):
    """Least squares with a penalty, on standardised features.

    With X the scaled, centred features [N, D], Y the centred indicators [N, K] and s the strength times the mean
    eigenvalue, the weights are (X'X + s I)^-1 X'Y. Let X'X = V diag(e) V' (or XX' = U diag(e) U' where N < D, with
    X'(XX' + s I)^-1 Y the same weights): then every strength costs two products with a K-column matrix.

    Args:
        strengths: the strengths to choose from on val; without val the middle one is taken.
    """

    def __init__(self, strengths: tuple[float, ...] = STRENGTHS) -> None:
        self.strengths = strengths

    def fit(self, x: ArrayLike, y: ArrayLike, *, val: tuple[ArrayLike, ArrayLike] | None = None) -> Self:
        """See `Head.fit`; val chooses the strength by accuracy, ties by squared error."""
        table, classes, positions = examples(x, y)
        self.scale_ = Scale.of(table)
        scaled = self.scale_(table).astype(np.float64)
        target = one_hot(positions, len(classes))
        self.bias_ = target.mean(0)
        values, basis, moments = _decompose(scaled, target - self.bias_)
        unit = values.sum() / min(scaled.shape) if values.any() else 1.0
        choose = self._choose(values, basis, moments, unit, classes, val)
        self.strength_ = choose
        self.weight_ = basis @ (moments / (values + choose * unit)[:, None])
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
        self,
        values: NDArray[np.float64],
        basis: NDArray[np.float64],
        moments: NDArray[np.float64],
        unit: float,
        classes: NDArray[np.int64],
        val: tuple[ArrayLike, ArrayLike] | None,
    ) -> float:
        if val is None or len(self.strengths) == 1:
            return self.strengths[len(self.strengths) // 2]
        projected = self.scale_(features(val[0])).astype(np.float64) @ basis
        labels = np.asarray(val[1])
        target = (labels[:, None] == classes).astype(np.float64) - self.bias_
        judged = []
        for strength in self.strengths:
            guess = projected @ (moments / (values + strength * unit)[:, None])
            right = classes[(guess + self.bias_).argmax(1)] == labels
            judged.append((float(right.mean()), float(np.square(guess - target).mean())))
        self.val_accuracy_, self.val_loss_ = judged[validation_choice(judged)]
        return self.strengths[validation_choice(judged)]


def _decompose(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues e [R], basis [D, R] and moments [R, K] with weights(s) = basis @ (moments / (e + s)).

    The smaller of the two Gram matrices is decomposed; directions of no variance are left out.
    """
    n, d = x.shape
    if d <= n:
        values, basis = scipy.linalg.eigh(x.T @ x, overwrite_a=True, driver="evd")
        kept = values > values[-1] * 1e-10
        values, basis = values[kept], basis[:, kept]
        return values, basis, basis.T @ (x.T @ y)
    values, left = scipy.linalg.eigh(x @ x.T, overwrite_a=True, driver="evd")
    kept = values > values[-1] * 1e-10
    values, left = values[kept], left[:, kept]
    # Right singular vectors are X'U / sqrt(e), and V'X'Y = sqrt(e) U'Y.
    root = np.sqrt(values)
    return values, (x.T @ left) / root, root[:, None] * (left.T @ y)


build = Ridge

"""Ridge regression on class indicators: all strengths from one tridiagonal form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from twofold.heads import _gram
from twofold.heads._gram import Gram
from twofold.heads._shifted import Shifted
from twofold.heads._standard import Scale, checked_strengths, validation_choice
from twofold.heads.base import Head, Labels, Matrix, labelled, positions_of, table_of

# Relative to the mean eigenvalue of the scaled features' covariance, so that they mean the same for every D and N.
STRENGTHS = tuple(float(s) for s in np.logspace(-5, 2, 15))


@final
class Ridge(Head):
    """Least squares with a penalty, on standardised features.

    With X the scaled, centred features [N, D], Y the centred indicators [N, K] and s the strength times the mean
    eigenvalue, the weights are (X'X + s I)^-1 X'Y, or X'(XX' + s I)^-1 Y where rows are fewer than columns. The
    matrix is brought to tridiagonal form once for all strengths, see `_shifted`. X'X and X'Y are summed over pieces
    of rows in double precision.

    Args:
        strengths: the strengths to choose from on val; without val the middle one is taken.
    """

    def __init__(self, strengths: tuple[float, ...] = STRENGTHS) -> None:
        self.strengths = checked_strengths("ridge", strengths)

    def fit(self, x: ArrayLike, y: ArrayLike, *, val: tuple[ArrayLike, ArrayLike] | None = None) -> Self:
        """See `Head.fit`; val chooses the strength by accuracy, ties by squared error."""
        table, classes, positions = labelled(x, y)
        self.scale_ = Scale.of(table)
        self.bias_ = np.bincount(positions) / len(positions)
        gram = _gram.of(self.scale_, table, torch.from_numpy(positions), len(classes))
        unit, system = _gram.unit(gram), Shifted(gram.matrix, gram.target)
        strengths = self._open(val)
        solutions = [system.solve(strength * unit) for strength in strengths]
        best = 0 if val is None or len(solutions) == 1 else self._best(gram, solutions, classes, val)
        self.strength_ = strengths[best]
        self.weight_ = gram.weights(solutions[best]).numpy()
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

    def _open(self, val: tuple[ArrayLike, ArrayLike] | None) -> tuple[float, ...]:
        """The strengths that val chooses from; without val the middle one."""
        middle = len(self.strengths) // 2
        return self.strengths if val is not None else self.strengths[middle : middle + 1]

    def _best(self, gram: Gram, solutions: Sequence[Tensor], classes: Labels, val: tuple[ArrayLike, ArrayLike]) -> int:
        """Which of the solutions [M, K] val chooses."""
        table = table_of(val[0])
        positions, bias = torch.from_numpy(positions_of(val[1], classes)), torch.from_numpy(self.bias_)
        right, error = (np.zeros(len(solutions)) for _ in range(2))
        columns = torch.arange(len(classes))
        for rows, x in gram.project(table):
            own = positions[rows]
            target = (own[:, None] == columns).double() - bias
            for k, weights in enumerate(solutions):
                guess = x @ weights
                right[k] += int(((guess + bias).argmax(1) == own).sum())
                error[k] += float((guess - target).square_().sum())
        judged = list(zip(right / table.shape[0], error / table.shape[0] / len(classes), strict=True))
        return validation_choice(judged)


build = Ridge

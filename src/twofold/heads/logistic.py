"""Multinomial logistic regression: full-batch L-BFGS along a warm-started path of strengths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from twofold.heads._descent import Objective, Path
from twofold.heads._pieces import Source, product
from twofold.heads._spectrum import Spectrum
from twofold.heads._standard import Scale, checked_strengths, validation_choice
from twofold.heads.base import Head, Labels, Matrix, labelled, positions_of, table_of

# C of scikit-learn's LogisticRegression: larger = weaker penalty. From strong to weak, so that each start is near.
STRENGTHS = tuple(float(c) for c in np.logspace(-4, 1, 11))
ROUGHER = 100.0


@final
class Logistic(Head):
    """Minimise C * sum of cross-entropies + |W|^2 / 2 on standardised features, the intercept free.

    The same objective as scikit-learn's `LogisticRegression`, whose solution it reaches.

    Args:
        strengths: values of C to choose from on val; without val the middle one is taken.
        tolerance: a solution counts as found where the gradient of the objective divided by C N is nowhere larger
            (scikit-learn's `tol`) and that objective is within a tenth of it of the least.
        most_steps: L-BFGS steps a strength.
    """

    log_odds = True

    def __init__(
        self, strengths: tuple[float, ...] = STRENGTHS, tolerance: float = 1e-6, most_steps: int = 500
    ) -> None:
        self.strengths = checked_strengths("logistic", strengths)
        self.tolerance = tolerance
        self.most_steps = most_steps

    def fit(self, x: ArrayLike, y: ArrayLike, *, val: tuple[ArrayLike, ArrayLike] | None = None) -> Self:
        """See `Head.fit`; val chooses C by accuracy, ties by cross-entropy."""
        table, classes, positions = labelled(x, y)
        self.scale_ = Scale.of(table)
        solver = Solver(self.scale_, table, torch.from_numpy(positions), len(classes), self.most_steps)
        open_ = val is not None and len(self.strengths) > 1
        path = sorted(set(self.strengths)) if open_ else [self.strengths[len(self.strengths) // 2]]
        # Choosing needs the answers and not the last digits; the chosen solution is polished.
        solutions = list(solver.path(path, self.tolerance * (ROUGHER if open_ else 1)))
        best = 0
        if val is not None and open_:
            best = validation_choice(solver.judge(table_of(val[0]), positions_of(val[1], classes), solutions))
            solutions[best] = solver.solve(solutions[best], path[best], self.tolerance)
        self.strength_, self.classes_ = path[best], classes
        self.weight_ = solver.weights(solutions[best][:-1]).numpy()
        self.bias_ = solutions[best][-1].numpy()
        return self

    def scores(self, x: ArrayLike) -> Matrix:
        """Log-odds up to a constant, float32 [N, K]; their softmax are the probabilities."""
        self.check_fitted()
        return self.scale_.scores(table_of(x), self.weight_, self.bias_)

    def settled(self) -> Logistic:
        """A logistic regression of the chosen strength."""
        self.check_fitted()
        return Logistic((self.strength_,), self.tolerance, self.most_steps)

    @property
    def choice(self) -> dict[str, Any]:
        """The strength C."""
        return {"strength": self.strength_}


class Solver:
    """Solutions on one table: weights [D + 1, K], intercepts last.

    With fewer rows than columns the solution lies in the span of the rows, and is sought in the rows' coordinates
    along their principal directions, which keep its length.
    """

    def __init__(self, scale: Scale, table: Source, positions: Tensor, classes: int, most_steps: int) -> None:
        self.scale = scale
        self._wide: Spectrum | None = None
        if table.shape[0] < table.shape[1]:
            self._wide = Spectrum.of(scale, table, positions, classes)
            table = self._wide.coordinates.numpy()
            scale = Scale(np.zeros(table.shape[1], np.float32), np.ones(table.shape[1], np.float32))
        self.rows = table.shape[0]
        self._path = Path(Objective(table, scale, positions, classes), most_steps)

    def path(self, strengths: Sequence[float], tolerance: float) -> Iterator[Tensor]:
        """Solutions for ascending strengths, each sought where the two before it point, over the logarithm of C."""
        before: list[tuple[float, Tensor]] = []
        for strength in strengths:
            start = before[-1][1] if before else None
            if start is not None and len(before) > 1:
                (c0, w0), (c1, w1) = before
                start = w1 + (w1 - w0) * (math.log(strength / c1) / math.log(c1 / c0))
            found = self.solve(start, strength, tolerance)
            before = [*before[-1:], (strength, found)]
            yield found

    def solve(self, start: Tensor | None, strength: float, tolerance: float) -> Tensor:
        """The solution for one strength."""
        start = self._path.objective.start() if start is None else start
        return self._path.solve(start, 1 / (strength * self.rows), tolerance)

    def weights(self, inner: Tensor) -> Tensor:
        """Weights [R, K] as weights of the scaled columns [D, K]."""
        return inner if self._wide is None else self._wide.weights(inner)

    def judge(self, table: Source, positions: Labels, solutions: Sequence[Tensor]) -> list[tuple[float, float]]:
        """Accuracy and mean cross-entropy of each solution on held-out rows with class positions [N].

        A row of a strange class, -1, is wrong and has no cross-entropy.
        """
        known = torch.from_numpy(positions >= 0)
        own = torch.from_numpy(positions)
        right, loss = (np.zeros(len(solutions)) for _ in range(2))
        held = self.scale.pieces(table, check=True) if self._wide is None else self._wide.project(table)
        for rows, x in held:
            for k, weights in enumerate(solutions):
                turned = weights.T.to(x.dtype)
                logs = (product(x, turned[:, :-1].contiguous()) + turned[:, -1]).log_softmax(1)
                right[k] += int((logs.argmax(1) == own[rows]).sum())
                loss[k] -= float(logs[known[rows]].gather(1, own[rows][known[rows], None]).sum(dtype=torch.float64))
        count = max(int(known.sum()), 1)
        return list(zip(right / len(positions), loss / count, strict=True))


build = Logistic

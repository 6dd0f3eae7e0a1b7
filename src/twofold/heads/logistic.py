"""Multinomial logistic regression: full-batch L-BFGS along a warm-started path of strengths."""

from __future__ import annotations

from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from twofold.heads._spectrum import Spectrum
from twofold.heads._standard import Scale, one_hot, validation_choice
from twofold.heads.base import Head, Labels, Matrix, examples, features

# C of scikit-learn's LogisticRegression: larger = weaker penalty. From strong to weak, so that each start is near.
STRENGTHS = tuple(float(c) for c in np.logspace(-4, 1, 11))
ROUGHER = 100.0


@final
class Logistic(Head):
    """Minimise C * sum of cross-entropies + |W|^2 / 2 on standardised features, the intercept free.

    The same objective as scikit-learn's `LogisticRegression`, whose solution it reaches.

    Args:
        strengths: values of C to choose from on val; without val the middle one is taken.
        tolerance: largest entry of the gradient of the loss divided by C N, in the solver's coordinates, at which a
            solution counts as found.
        most_steps: L-BFGS steps a strength.
    """

    log_odds = True

    def __init__(
        self, strengths: tuple[float, ...] = STRENGTHS, tolerance: float = 1e-6, most_steps: int = 500
    ) -> None:
        self.strengths = strengths
        self.tolerance = tolerance
        self.most_steps = most_steps

    def fit(self, x: ArrayLike, y: ArrayLike, *, val: tuple[ArrayLike, ArrayLike] | None = None) -> Self:
        """See `Head.fit`; val chooses C by accuracy, ties by cross-entropy."""
        table, classes, positions = examples(x, y)
        self.scale_ = Scale.of(table)
        spectrum = Spectrum.of(torch.from_numpy(self.scale_(table)).double())
        target = torch.from_numpy(one_hot(positions, len(classes)))
        open_ = val is not None and len(self.strengths) > 1
        path = sorted(self.strengths) if open_ else [self.strengths[len(self.strengths) // 2]]
        solutions, judged = [], []
        # Choosing needs the answers and not the last digits; the chosen solution is polished.
        rough = self.tolerance * (ROUGHER if open_ else 1)
        start = torch.zeros(len(spectrum.values) + 1, len(classes), dtype=torch.float64)
        for strength in path:
            start = _solve(spectrum, target, strength, start, rough, self.most_steps)
            solutions.append(start)
            if val is not None and open_:
                held_out = torch.from_numpy(self.scale_(features(val[0]))).double() @ spectrum.basis
                judged.append(_judge(held_out, np.asarray(val[1]), start, classes))
        best = validation_choice(judged) if open_ else 0
        found = solutions[best]
        if open_:
            found = _solve(spectrum, target, path[best], found, self.tolerance, self.most_steps)
        self.strength_, self.classes_ = path[best], classes
        self.weight_ = (spectrum.basis @ found[:-1]).numpy()
        self.bias_ = found[-1].numpy()
        return self

    def scores(self, x: ArrayLike) -> Matrix:
        """Log-odds up to a constant, float32 [N, K]; their softmax are the probabilities."""
        self.check_fitted()
        scores: Matrix = (self.scale_(features(x)) @ self.weight_ + self.bias_).astype(np.float32)
        return scores

    def settled(self) -> Logistic:
        """A logistic regression of the chosen strength."""
        self.check_fitted()
        return Logistic((self.strength_,), self.tolerance, self.most_steps)

    @property
    def choice(self) -> dict[str, Any]:
        """The strength C."""
        return {"strength": self.strength_}


def _solve(
    spectrum: Spectrum, target: Tensor, strength: float, start: Tensor, tolerance: float, most_steps: int
) -> Tensor:
    """Weights along the principal directions and, in the last row, intercepts: [R + 1, K].

    L-BFGS runs in coordinates in which the Hessian at the start is near the identity: along a direction of eigenvalue
    e it is about c e / N + 1 / (C N), with c the mean of p (1 - p). The optimum is the same, the steps are few.
    """
    n = len(spectrum.projected)
    penalty = 1 / (strength * n)
    spread = _spread(spectrum.projected, start)
    stretch = (spread * spectrum.values / n + penalty).rsqrt()[:, None]
    x = spectrum.projected * stretch.T
    penalties = penalty * stretch.square()

    weights = torch.vstack([start[:-1] / stretch, start[-1:]])
    solver = torch.optim.LBFGS(
        [weights], max_iter=most_steps, max_eval=4 * most_steps, history_size=20,
        tolerance_grad=tolerance, tolerance_change=0.0, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        chances = (x @ weights[:-1] + weights[-1]).log_softmax(1)
        residual = (chances.exp() - target) / n
        weights.grad = torch.vstack([x.T @ residual + penalties * weights[:-1], residual.sum(0)])
        return (penalties * weights[:-1].square()).sum() / 2 - (chances * target).sum() / n

    solver.step(loss)  # type: ignore[no-untyped-call]
    return torch.vstack([weights[:-1] * stretch, weights[-1:]])


def _spread(x: Tensor, weights: Tensor) -> float:
    """Mean of p (1 - p) over rows and classes: the curvature of the cross-entropy at these weights."""
    chances = (x @ weights[:-1] + weights[-1]).softmax(1)
    return max(float((chances * (1 - chances)).mean()), 1e-4)


def _judge(x: Tensor, labels: Labels, solution: Tensor, classes: Labels) -> tuple[float, float]:
    """Accuracy and mean cross-entropy on val, x [N, R] along the principal directions."""
    chances = (x @ solution[:-1] + solution[-1]).log_softmax(1).numpy()
    right = classes[chances.argmax(1)] == labels
    known = np.isin(labels, classes)
    position = np.searchsorted(classes, labels[known])
    own = chances[known][np.arange(int(known.sum())), position]
    return float(right.mean()), float(-own.mean()) if known.any() else 0.0


build = Logistic

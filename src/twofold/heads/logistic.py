"""Multinomial logistic regression: full-batch L-BFGS along a warm-started path of strengths."""

from __future__ import annotations

from typing import Any, Self, final

import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import ArrayLike, NDArray

from twofold.heads._standard import Scale, one_hot, validation_choice
from twofold.heads.base import Head, Matrix, examples, features

# C of scikit-learn's LogisticRegression: larger = weaker penalty. From strong to weak, so that each start is near.
STRENGTHS = tuple(float(c) for c in np.logspace(-4, 1, 11))


@final
class Logistic(Head):
    """Minimise C * sum of cross-entropies + |W|^2 / 2 on standardised features, the intercept free.

    The same objective as scikit-learn's `LogisticRegression`, whose solution it reaches.

    Args:
        strengths: values of C to choose from on val; without val the middle one is taken.
        tolerance: largest gradient entry, divided by C N, at which a solution counts as found.
        most_steps: L-BFGS steps a strength.
    """

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
        scaled = self.scale_(table).astype(np.float64)
        target = one_hot(positions, len(classes))
        open_ = val is not None and len(self.strengths) > 1
        path = sorted(self.strengths) if open_ else [self.strengths[len(self.strengths) // 2]]
        solutions, judged = [], []
        start = np.zeros((scaled.shape[1] + 1, len(classes)))
        for strength in path:
            start = self._solve(scaled, target, strength, start)
            solutions.append(start)
            if val is not None and open_:
                judged.append(_judge(self.scale_(features(val[0])), np.asarray(val[1]), start, classes))
        best = validation_choice(judged) if open_ else 0
        self.strength_, self.classes_ = path[best], classes
        self.weight_, self.bias_ = solutions[best][:-1], solutions[best][-1]
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
        self, x: NDArray[np.float64], target: NDArray[np.float64], strength: float, start: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Weights and, in the last row, intercepts: [D + 1, K]."""
        n = len(x)
        penalty = 1 / (strength * n)

        def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            weights = flat.reshape(start.shape)
            logits = x @ weights[:-1] + weights[-1]
            normaliser = scipy.special.logsumexp(logits, axis=1, keepdims=True)
            residual = (np.exp(logits - normaliser) - target) / n
            gradient = np.vstack([x.T @ residual + penalty * weights[:-1], residual.sum(0)])
            value = (normaliser.sum() - (logits * target).sum()) / n + penalty / 2 * np.square(weights[:-1]).sum()
            return float(value), gradient.ravel()

        found = scipy.optimize.minimize(
            loss, start.ravel(), jac=True, method="L-BFGS-B",
            options={"maxiter": self.most_steps, "gtol": self.tolerance, "ftol": 0.0, "maxfun": 4 * self.most_steps},
        )  # fmt: skip
        solution: NDArray[np.float64] = found.x.reshape(start.shape)
        return solution


def _judge(
    x: Matrix, labels: NDArray[np.int64], solution: NDArray[np.float64], classes: NDArray[np.int64]
) -> tuple[float, float]:
    """Accuracy and mean cross-entropy on val."""
    logits = x @ solution[:-1] + solution[-1]
    right = classes[logits.argmax(1)] == labels
    known = np.isin(labels, classes)
    position = np.searchsorted(classes, labels[known])
    chances = scipy.special.log_softmax(logits[known], axis=1)[np.arange(int(known.sum())), position]
    return float(right.mean()), float(-chances.mean()) if known.any() else 0.0


build = Logistic

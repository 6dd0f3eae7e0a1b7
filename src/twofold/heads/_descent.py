"""Full-batch minimisation of the cross-entropy of a linear head with a penalty, by preconditioned L-BFGS.

    F(W) = 1/N sum_i -log softmax(W'x_i + b)[y_i] + penalty/2 |W|^2

Its Hessian is 1/N sum_i x_i x_i' (x) (diag(p_i) - p_i p_i') + penalty. Were p_i the same for all rows it would be the
Kronecker product of the features' covariance C = V diag(e) V' and the classes' M = U diag(a) U', M the mean of
diag(p) - p p'; its inverse then only divides by e a + penalty. L-BFGS (Nocedal and Wright 2006, algorithm 7.4) starts
each step from that inverse, with M of the moment and its size along the last steps, and takes some tens of passes over
the rows where plain L-BFGS takes hundreds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twofold.heads._pieces import ENTRIES, Source, product_and_back
from twofold.heads._standard import Scale

MEMORY = 20  # pairs of steps and changes of slope that are kept
SAMPLE = 8  # rows for each column from which the covariance of the preconditioner is measured
FLOOR = 1e-6  # of the eigenvalues of M: the classes' scores may all shift by the same number
SHORTEST = 1e-6


@dataclass(frozen=True)
class Point:
    """The objective at some weights: intercepts are the last row of weights and slope [D + 1, K].

    Attributes:
        weights, slope: double [D + 1, K]; the slope without the penalty's part.
        loss: the mean cross-entropy, without the penalty.
        mixing: M [K, K].
    """

    weights: Tensor
    loss: float
    slope: Tensor
    mixing: Tensor

    def value(self, penalty: float) -> float:
        """F."""
        return self.loss + penalty * float(self.weights[:-1].square().sum()) / 2

    def steepness(self, penalty: float) -> Tensor:
        """The slope of F."""
        return self.slope + penalty * _without_intercepts(self.weights)


class Objective:
    """The mean cross-entropy over a table's rows, and the covariance of its scaled columns.

    Rows are read in single precision and summed in double; a table of one piece is small and is computed in double.
    """

    def __init__(self, table: Source, scale: Scale, positions: Tensor, classes: int) -> None:
        self.table, self.scale, self.positions, self.classes = table, scale, positions, classes
        rows, columns = table.shape
        self._exact = rows * columns <= ENTRIES
        self.values, self.basis = self._covariance(max(rows // (SAMPLE * columns), 1))

    def at(self, weights: Tensor) -> Point:
        """One pass over the rows."""
        columns = self.table.shape[1]
        turned = weights.T.to(self._dtype)
        inner = turned[:, :-1].contiguous()
        slope = torch.zeros(self.classes, columns + 1, dtype=torch.float64)
        mixing = torch.zeros(self.classes, self.classes, dtype=torch.float64)
        loss = 0.0
        for rows, x in self._pieces():
            scores, back = product_and_back(x, inner)
            logs = scores.add_(turned[:, -1]).log_softmax(1)
            own = self.positions[rows, None]
            loss -= float(logs.gather(1, own).sum(dtype=torch.float64))
            chances = logs.exp_()
            mixing -= chances.T @ chances
            mixing.diagonal().add_(chances.sum(0))
            chances.scatter_add_(1, own, chances.new_full(own.shape, -1))
            slope[:, :-1] += back(chances)
            slope[:, -1] += chances.sum(0)
        count = self.table.shape[0]
        return Point(weights, loss / count, slope.T / count, mixing / count)

    def start(self) -> Tensor:
        """Weights of zero."""
        return torch.zeros(self.table.shape[1] + 1, self.classes, dtype=torch.float64)

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self._exact else torch.float32

    def _pieces(self, every: int = 1) -> Iterator[tuple[slice, Tensor]]:
        for rows, x in self.scale.pieces(self.table, every=every):
            yield rows, x.to(self._dtype)

    def _covariance(self, every: int) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of the covariance of the scaled columns, from every so-many-th piece."""
        columns, count = self.table.shape[1], 0
        gram = torch.zeros(columns, columns, dtype=torch.float64)
        for _, x in self._pieces(every):
            gram += x.T @ x
            count += len(x)
        values, basis = torch.linalg.eigh(gram / count)
        return values.clamp(min=0), basis


class Path:
    """Solutions for one penalty after another; what was learned of the curvature is kept.

    Args:
        objective: see `Objective`.
        most_steps: of each solution.
    """

    def __init__(self, objective: Objective, most_steps: int) -> None:
        self.objective = objective
        self.most_steps = most_steps
        # Steps, and the changes of the slope of the cross-entropy alone: they hold for every penalty.
        self._pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=MEMORY)
        # How much smaller the inverse was along the last steps than the preconditioner says, in logarithms.
        self._sizes: deque[float] = deque(maxlen=5)

    def solve(self, start: Tensor, penalty: float, tolerance: float) -> Tensor:
        """Weights that are near enough to the least F.

        The steepness is nowhere above the tolerance, and F, judged by its curvature, is within a tenth of it.
        """
        point = self.objective.at(start)
        for _ in range(self.most_steps):
            steepness = point.steepness(penalty)
            inverse = self._inverse(point.mixing, penalty)
            excess = float((steepness * inverse(steepness)).sum()) / 2
            if float(steepness.abs().max()) <= tolerance and excess <= tolerance / 10:
                break
            pairs = [(s, change + penalty * _without_intercepts(s)) for s, change in self._pairs]
            found = self._search(point, -_direction(steepness, pairs, inverse, self._size()), penalty)
            if found is None:
                break
            self._learn(point, found, inverse, penalty)
            point = found
        return point.weights

    def _search(self, point: Point, direction: Tensor, penalty: float) -> Point | None:
        """A point along the direction where F is lower; None where rounding hides it.

        F is convex, so where it still falls along the direction it is lower than at the start.
        """
        falling = float((point.steepness(penalty) * direction).sum())
        step, before = 1.0, point.value(penalty)
        while step > SHORTEST:
            there = self.objective.at(point.weights + step * direction)
            slope = float((there.steepness(penalty) * direction).sum())
            if slope <= 0 or there.value(penalty) < before + 1e-4 * step * falling:
                return there
            # Where the slope would be zero if it changed evenly.
            step *= min(max(falling / (falling - slope), 0.1), 0.9)
        return None

    def _learn(self, point: Point, found: Point, inverse: _Inverse, penalty: float) -> None:
        """Keep a step and its change; where rounding hides that F is convex there is nothing to learn."""
        step, change = found.weights - point.weights, found.steepness(penalty) - point.steepness(penalty)
        along = float((step * change).sum())
        if along > 0:
            self._pairs.append((step, found.slope - point.slope))
            self._sizes.append(math.log(along / float((change * inverse(change)).sum())))

    def _size(self) -> float:
        return math.exp(sum(self._sizes) / len(self._sizes)) if self._sizes else 1.0

    def _inverse(self, mixing: Tensor, penalty: float) -> _Inverse:
        shares, turn = torch.linalg.eigh(mixing)
        shares = shares.clamp(min=FLOOR)
        values, basis = self.objective.values, self.objective.basis
        return _Inverse(basis, turn, shares[:, None] * values + penalty, shares)


@dataclass(frozen=True)
class _Inverse:
    """The inverse of C (x) M + penalty; of the intercepts' part, M."""

    basis: Tensor
    turn: Tensor
    curvature: Tensor
    shares: Tensor

    def __call__(self, slope: Tensor) -> Tensor:
        """Apply it to [D + 1, K]."""
        # Few rows times a large matrix are fast, a large matrix times few columns is slow.
        turned = self.turn.T @ slope.T
        inner = (turned[:, :-1] @ self.basis / self.curvature) @ self.basis.T
        found = self.turn @ torch.hstack([inner, turned[:, -1:] / self.shares[:, None]])
        # The intercepts may all shift by the same number; rounding must not drive them there.
        found[:, -1] -= found[:, -1].mean()
        return found.T.contiguous()


def _direction(steepness: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], inverse: _Inverse, size: float) -> Tensor:
    """The two loops of L-BFGS around `size` times the inverse; pairs of steps and changes of the steepness."""
    shares = []
    rest = steepness.clone()
    for step, change in reversed(pairs):
        shares.append(float((step * rest).sum() / (step * change).sum()))
        rest -= shares[-1] * change
    found = size * inverse(rest)
    for (step, change), share in zip(pairs, reversed(shares), strict=True):
        found += (share - float((change * found).sum() / (step * change).sum())) * step
    return found


def _without_intercepts(weights: Tensor) -> Tensor:
    """The weights with zeros for the intercepts, which are not penalised."""
    return torch.vstack([weights[:-1], torch.zeros_like(weights[-1:])])

"""k nearest neighbours by cosine similarity, weighted, computed in blocks."""

from __future__ import annotations

from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twofold.heads._standard import Scale, one_hot, validation_choice
from twofold.heads.base import Head, Labels, Matrix, examples, features

NEIGHBOURS = (1, 3, 5, 10, 20)
TEMPERATURE = 0.07  # weight of a neighbour: exp(cosine / 0.07), as in Wu et al. 2018 (arXiv 1805.01978)
ROWS_AT_ONCE = 1024


@final
class NearestNeighbours(Head):
    """Votes of the k most similar training rows, on standardised features.

    Args:
        neighbours: values of k to choose from on val; without val the middle one is taken.
    """

    def __init__(self, neighbours: tuple[int, ...] = NEIGHBOURS) -> None:
        self.neighbours = neighbours

    def fit(self, x: ArrayLike, y: ArrayLike, *, val: tuple[ArrayLike, ArrayLike] | None = None) -> Self:
        """See `Head.fit`; val chooses k by accuracy, ties by the share of votes for the right class."""
        table, classes, positions = examples(x, y)
        self.scale_ = Scale.of(table)
        self.bank_ = _unit(self.scale_(table))
        self.votes_ = one_hot(positions, len(classes)).astype(np.float32)
        self.classes_ = classes
        self.k_ = min(self.neighbours[len(self.neighbours) // 2], len(table))
        if val is not None and len(self.neighbours) > 1:
            self.k_ = self._choose(val)
        return self

    def scores(self, x: ArrayLike) -> Matrix:
        """Shares of the weighted votes, float32 [N, K]."""
        self.check_fitted()
        return self._votes(features(x), [self.k_])[0]

    def settled(self) -> NearestNeighbours:
        """Nearest neighbours of the chosen k."""
        self.check_fitted()
        return NearestNeighbours((self.k_,))

    @property
    def choice(self) -> dict[str, Any]:
        """The number of neighbours."""
        return {"k": self.k_}

    def _choose(self, val: tuple[ArrayLike, ArrayLike]) -> int:
        labels: Labels = np.asarray(val[1])
        allowed = [k for k in self.neighbours if k <= len(self.bank_)] or [len(self.bank_)]
        judged = []
        for shares in self._votes(features(val[0]), allowed):
            right = self.classes_[shares.argmax(1)] == labels
            wanted = (labels[:, None] == self.classes_).astype(np.float32)
            judged.append((float(right.mean()), -float((shares * wanted).sum(1).mean())))
        return allowed[validation_choice(judged)]

    def _votes(self, x: Matrix, counts: list[int]) -> list[Matrix]:
        """Vote shares [N, K] for each k of `counts`, from one search."""
        parts: list[list[Matrix]] = [[] for _ in counts]
        for start in range(0, len(x), ROWS_AT_ONCE):
            similar = _unit(self.scale_(x[start : start + ROWS_AT_ONCE])) @ self.bank_.T
            order = _top(similar, max(counts))
            nearest = np.take_along_axis(similar, order, 1)
            weight = np.exp((nearest - nearest[:, :1]) / TEMPERATURE)
            for part, k in zip(parts, counts, strict=True):
                votes = (weight[:, :k, None] * self.votes_[order[:, :k]]).sum(1)
                part.append(votes / votes.sum(1, keepdims=True))
        empty = np.empty((0, len(self.classes_)), dtype=np.float32)
        return [np.concatenate([empty, *part]) for part in parts]


def _unit(x: Matrix) -> Matrix:
    """Rows of length one; rows of zeros stay."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit: Matrix = x / np.maximum(length, 1e-12)
    return unit


def _top(similar: Matrix, k: int) -> NDArray[np.int64]:
    """Columns of the k largest entries of each row, largest first; equal entries in column order."""
    if k < similar.shape[1]:
        some = np.sort(np.argpartition(-similar, k - 1, axis=1)[:, :k], axis=1)
    else:
        some = np.broadcast_to(np.arange(similar.shape[1]), similar.shape)
    ranked = np.argsort(-np.take_along_axis(similar, some, 1), axis=1, kind="stable")
    chosen: NDArray[np.int64] = np.take_along_axis(some, ranked, 1)
    return chosen


build = NearestNeighbours

"""k nearest neighbours by cosine similarity, weighted, computed in blocks."""

from __future__ import annotations

from typing import Any, Self, final

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from twofold.heads._pieces import ENTRIES, product
from twofold.heads._standard import Scale, validation_choice
from twofold.heads.base import Head, Matrix, labelled, positions_of, table_of

NEIGHBOURS = (1, 3, 5, 10, 20)
TEMPERATURE = 0.07  # weight of a neighbour: exp(cosine / 0.07), as in Wu et al. 2018 (arXiv 1805.01978)
QUESTIONS = 8 * ENTRIES  # numbers of the rows that are compared in one reading of the training rows
AT_ONCE = 2048  # of them compared with one piece


@final
class NearestNeighbours(Head):
    """Votes of the k most similar training rows, on standardised features.

    The training rows are kept as they were given and not copied, in whatever number format they have.

    Args:
        neighbours: values of k to choose from on val; without val the middle one is taken.
    """

    def __init__(self, neighbours: tuple[int, ...] = NEIGHBOURS) -> None:
        self.neighbours = neighbours

    def fit(self, x: ArrayLike, y: ArrayLike, *, val: tuple[ArrayLike, ArrayLike] | None = None) -> Self:
        """See `Head.fit`; val chooses k by accuracy, ties by the share of votes for the right class."""
        self.bank_, classes, self.positions_ = labelled(x, y)
        self.scale_ = Scale.of(self.bank_)
        self.classes_ = classes
        self.k_ = min(self.neighbours[len(self.neighbours) // 2], self.bank_.shape[0])
        if val is not None and len(self.neighbours) > 1:
            self.k_ = self._choose(val)
        return self

    def scores(self, x: ArrayLike) -> Matrix:
        """Shares of the weighted votes, float32 [N, K]."""
        self.check_fitted()
        found: Matrix = self._votes(x, [self.k_])[0].numpy()
        return found

    def settled(self) -> NearestNeighbours:
        """Nearest neighbours of the chosen k."""
        self.check_fitted()
        return NearestNeighbours((self.k_,))

    @property
    def choice(self) -> dict[str, Any]:
        """The number of neighbours."""
        return {"k": self.k_}

    def _choose(self, val: tuple[ArrayLike, ArrayLike]) -> int:
        positions = torch.from_numpy(positions_of(val[1], self.classes_))
        known = positions >= 0
        allowed = [k for k in self.neighbours if k <= self.bank_.shape[0]] or [self.bank_.shape[0]]
        judged = []
        for shares in self._votes(val[0], allowed):
            right = float((shares.argmax(1) == positions).double().mean())
            wanted = float(shares[known, positions[known]].sum()) / max(len(shares), 1)
            judged.append((right, -wanted))
        return allowed[validation_choice(judged)]

    def _votes(self, x: ArrayLike, counts: list[int]) -> list[Tensor]:
        """Vote shares [N, K] for each k of `counts`, from one search."""
        table, labels = table_of(x), torch.from_numpy(self.positions_)
        found = [torch.empty(table.shape[0], len(self.classes_)) for _ in counts]
        for rows, questions in self.scale_.pieces(table, entries=QUESTIONS, check=True):
            similar, which = self._nearest(functional.normalize(questions, out=questions), max(counts))
            weight = torch.exp((similar - similar[:, :1]) / TEMPERATURE)
            for votes, k in zip(found, counts, strict=True):
                own = torch.zeros(len(questions), len(self.classes_))
                own.scatter_add_(1, labels[which[:, :k]], weight[:, :k])
                votes[rows] = own / own.sum(1, keepdim=True)
        return found

    def _nearest(self, questions: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Similarity and number of the k training rows nearest to rows of length one, nearest first, both [n, k]."""
        similar, which = torch.empty(len(questions), 0), torch.empty(len(questions), 0, dtype=torch.int64)
        for rows, bank in self.scale_.pieces(self.bank_):
            functional.normalize(bank, out=bank)
            parts = [_top(product(some, bank), k, rows.start) for some in torch.split(questions, AT_ONCE)]
            similar = torch.cat([similar, torch.cat([values for values, _ in parts])], 1)
            which = torch.cat([which, torch.cat([numbers for _, numbers in parts])], 1)
            # Stable, so that of equal neighbours the one that comes first in the table comes first here.
            similar, order = similar.sort(dim=1, descending=True, stable=True)
            similar, which = similar[:, :k], which.gather(1, order[:, :k])
        return similar, which


def _top(similar: Tensor, k: int, first: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of each row and their columns, counted from `first`, in order of columns."""
    columns = similar.topk(min(k, similar.shape[1]), 1, sorted=False).indices.sort(1).values
    return similar.gather(1, columns), columns + first


build = NearestNeighbours

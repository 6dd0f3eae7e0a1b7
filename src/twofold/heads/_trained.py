"""What heads that are trained by gradients share."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.func import functional_call

from twofold.errors import unknown
from twofold.heads._standard import validation_choice
from twofold.heads._training import RECIPES, Candidate, Weights, train
from twofold.heads.base import Head, Labels, Matrix, examples, features

ROWS = 1024  # scored at once


@dataclass(eq=False)
class Trained(Head):
    """A small network on standardised features; cross-entropy.

    The papers put a batch norm without weights before their heads. On a stored table its statistics are known
    exactly, so each column (of maps: each channel) is centred and scaled by those of the training rows.

    Args:
        recipe: `strong` (AdamW, cosine, label smoothing; fifteen rates and decays trained in one pass, val chooses)
            or `paper` (the released code's, PAPER.md 2).
        rate, decay: learning rate and weight decay; None leaves them to the recipe.
        epochs: passes over the rows; None leaves them to the recipe.
        updates: at least so many updates, however few rows there are; None leaves them to the recipe.
        seed: of the first weights and of the order of rows.
    """

    recipe: str = "strong"
    rate: float | None = None
    decay: float | None = None
    epochs: int | None = None
    updates: int | None = None
    seed: int = 0

    log_odds = True

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise unknown("recipe", self.recipe, RECIPES)

    @abstractmethod
    def network(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network for features of this shape, (D,) or (C, h, w)."""

    def fit(self, x: ArrayLike, y: ArrayLike, *, val: tuple[ArrayLike, ArrayLike] | None = None) -> Self:
        """See `Head.fit`; val chooses rate and decay by accuracy, ties by cross-entropy."""
        table, classes, positions = examples(x, y, maps=self.maps)
        order = _order(table, positions)
        self.mean_, self.factor_ = _scale(table)
        recipe = RECIPES[self.recipe]
        candidates = self._candidates(recipe.candidates)
        if val is None:
            candidates = (candidates[len(candidates) // 2],)
        epochs = self.epochs or recipe.epochs
        updates = recipe.updates if self.updates is None else self.updates
        recipe = replace(recipe, candidates=candidates, epochs=epochs, updates=updates)
        self.classes_, self.shape_ = classes, table.shape[1:]

        def rows(numbers: Tensor) -> Tensor:
            return self._prepared(table[order[numbers.numpy()]])

        answers = torch.from_numpy(positions[order])
        found = train(lambda: self.network(self.shape_, len(classes)), rows, answers, recipe, self.seed)
        best = 0
        if val is not None and len(found) > 1:
            best = validation_choice([self._judge(weights, *val) for weights in found])
        self.weights_, self.candidate_ = found[best], candidates[best]
        return self

    def scores(self, x: ArrayLike) -> Matrix:
        """Logarithms of probabilities, float32 [N, K]."""
        self.check_fitted()
        return self._scores(self.weights_, features(x, maps=self.maps))

    def settled(self) -> Trained:
        """The same head with the chosen rate and decay."""
        self.check_fitted()
        return replace(self, rate=self.candidate_.rate, decay=self.candidate_.decay)

    @property
    def choice(self) -> dict[str, Any]:
        """Learning rate and weight decay."""
        return {"rate": self.candidate_.rate, "decay": self.candidate_.decay}

    def _candidates(self, usual: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        """The recipe's, with what is given in place of what it leaves open."""
        given = [
            Candidate(c.rate if self.rate is None else self.rate, c.decay if self.decay is None else self.decay)
            for c in usual
        ]
        return tuple(dict.fromkeys(given))

    def _prepared(self, x: Matrix) -> Tensor:
        return torch.from_numpy((x - self.mean_) * self.factor_)

    @torch.inference_mode()
    def _scores(self, weights: Weights, x: Matrix) -> Matrix:
        with torch.device("meta"):
            network = self.network(self.shape_, len(self.classes_))
        parts = [
            functional_call(network, weights, (self._prepared(x[start : start + ROWS]),)).log_softmax(1)
            for start in range(0, len(x), ROWS)
        ]
        found: Matrix = torch.cat(parts).numpy()
        return found

    def _judge(self, weights: Weights, x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
        """Accuracy and mean cross-entropy on val."""
        scores, labels = self._scores(weights, features(x, maps=self.maps)), np.asarray(y)
        known = np.isin(labels, self.classes_)
        own = scores[known][np.arange(int(known.sum())), np.searchsorted(self.classes_, labels[known])]
        right = self.classes_[scores.argmax(1)] == labels
        return float(right.mean()), float(-own.mean()) if known.any() else 0.0


def _order(table: Matrix, positions: Labels) -> NDArray[np.int64]:
    """Rows in an order that is theirs and not the caller's, so that the same rows always give the same head."""
    names = [
        hashlib.blake2b(row.tobytes() + int(p).to_bytes(8, "big"), digest_size=16).digest()
        for row, p in zip(table, positions, strict=True)
    ]
    return np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)


def _scale(table: Matrix) -> tuple[Matrix, Matrix]:
    """Mean and one over the spread of each column or channel, shaped to broadcast over [N, ...].

    Columns that hardly vary stay small: a typical variance is added to each, as in `Scale`.
    """
    axes = (0, 2, 3) if table.ndim == 4 else (0,)
    mean = table.mean(axes, dtype=np.float64, keepdims=True)[0]
    variance = table.var(axes, dtype=np.float64, keepdims=True)[0]
    typical = float(np.median(variance)) or float(variance.mean()) or 1.0
    # Doubled, so that a column of typical variance comes to a spread of one.
    return mean.astype(np.float32), np.sqrt(2 / (variance + typical)).astype(np.float32)

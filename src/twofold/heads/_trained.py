"""What heads that are trained by gradients share."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.func import functional_call

from twofold.errors import BadSetting, unknown
from twofold.heads._pieces import Source, pieces, taken
from twofold.heads._standard import moments, validation_choice
from twofold.heads._training import RECIPES, Candidate, Recipe, Weights, train
from twofold.heads.base import Head, Labels, Matrix, examples, features, labelled, table_of

ROWS = 1024  # of several maps, scored at once
Shape = Any  # of a row: (D,), or (C, h, w), or of several maps {cell: (C, h, w)}


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
    paper_rate = 1e-2  # the learning rate of the recipe `paper`; the attention heads have another

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise unknown("recipe", self.recipe, RECIPES)

    def check_whole(self, *names: str) -> None:
        """Raise `BadSetting` where a setting that counts something is no whole number above 0; None is left alone."""
        for name in names:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise BadSetting(f"{name} of {type(self).__name__} must be a whole number of 1 or more, not {value!r}.")

    @abstractmethod
    def network(self, shape: Shape, classes: int) -> nn.Module:
        """The network for features of this shape; several maps come to it as a tuple of tensors."""

    def fit(self, x: ArrayLike, y: ArrayLike, *, val: tuple[ArrayLike, ArrayLike] | None = None) -> Self:
        """See `Head.fit`; val chooses rate and decay by accuracy, ties by cross-entropy."""
        table, classes, positions = self._examples(x, y)
        order = _order(table, positions)
        self.scale_ = Scaling.of(table)
        recipe = self.training
        candidates = recipe.candidates
        if val is None:
            candidates = (candidates[len(candidates) // 2],)
            recipe = replace(recipe, candidates=candidates)
        self.classes_, self.shape_ = classes, self.scale_.shape

        def rows(wanted: Iterable[Tensor]) -> Iterator[Any]:
            return (self.scale_(part) for part in taken(table, (order[numbers.numpy()] for numbers in wanted)))

        answers = torch.from_numpy(positions[order])
        found = train(lambda: self.network(self.shape_, len(classes)), rows, answers, recipe, self.seed)
        best = 0
        if val is not None and len(found) > 1:
            best = validation_choice([self._judge(weights, *val) for weights in found])
        self.weights_, self.candidate_ = found[best], candidates[best]
        return self

    @property
    def training(self) -> Recipe:
        """The recipe, with what the settings say in place of what it leaves open."""
        recipe = RECIPES[self.recipe]
        updates = recipe.updates if self.updates is None else self.updates
        candidates = self._candidates(recipe.candidates)
        return replace(recipe, candidates=candidates, epochs=self.epochs or recipe.epochs, updates=updates)

    def scores(self, x: ArrayLike) -> Matrix:
        """Logarithms of probabilities, float32 [N, K]."""
        self.check_fitted()
        return self._scores(self.weights_, self._features(x))

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
        if self.recipe == "paper":
            usual = tuple(replace(c, rate=self.paper_rate) for c in usual)
        given = [
            Candidate(c.rate if self.rate is None else self.rate, c.decay if self.decay is None else self.decay)
            for c in usual
        ]
        return tuple(dict.fromkeys(given))

    def _features(self, x: ArrayLike) -> Source:
        return features(x, maps=self.maps, several=self.several) if self.several else table_of(x, maps=self.maps)

    def _examples(self, x: ArrayLike, y: ArrayLike) -> tuple[Source, Labels, Labels]:
        return examples(x, y, several=True) if self.several else labelled(x, y, maps=self.maps)

    @torch.inference_mode()
    def _scores(self, weights: Weights, x: Source) -> Matrix:
        with torch.device("meta"):
            network = self.network(self.shape_, len(self.classes_))
        parts = [
            functional_call(network, weights, (self.scale_(part),)).log_softmax(1) for part in _parts(x, check=True)
        ]
        found: Matrix = torch.cat([torch.empty(0, len(self.classes_)), *parts]).numpy()
        return found

    def _judge(self, weights: Weights, x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
        """Accuracy and mean cross-entropy on val."""
        scores, labels = self._scores(weights, self._features(x)), np.asarray(y)
        known = np.isin(labels, self.classes_)
        own = scores[known][np.arange(int(known.sum())), np.searchsorted(self.classes_, labels[known])]
        right = self.classes_[scores.argmax(1)] == labels
        return float(right.mean()), float(-own.mean()) if known.any() else 0.0


def _parts(table: Source, *, check: bool = False) -> Iterator[NDArray[Any]]:
    """All rows in order, some at a time, in single precision."""
    if table.dtype.names:
        yield from (table[start : start + ROWS] for start in range(0, table.shape[0], ROWS))
    else:
        yield from (piece.numpy() for _, piece in pieces(table, check=check))


def _order(table: Source, positions: Labels) -> NDArray[np.int64]:
    """Rows in an order that is theirs and not the caller's, so that the same rows always give the same head."""
    rows = (row for part in _parts(table, check=True) for row in part)
    names = bytearray()
    for row, position in zip(rows, positions, strict=True):
        names += hashlib.blake2b(row.tobytes() + int(position).to_bytes(8, "big"), digest_size=16).digest()
    first, second = np.frombuffer(names, dtype=">u8").reshape(-1, 2).T
    return np.lexsort((second, first)).astype(np.int64)


@dataclass(frozen=True)
class Scaling:
    """Centred and scaled columns, or channels of maps, each table of several by itself.

    Attributes:
        shape: of a row, see `Shape`.
        parts: mean and one over the spread, shaped to broadcast over [N, ...]; several by the names of their maps.
    """

    shape: Shape
    parts: dict[str, tuple[Matrix, Matrix]]

    @classmethod
    def of(cls, table: Source) -> Scaling:
        """Measure training rows."""
        names = table.dtype.names
        if names is None:
            return cls(table.shape[1:], {"": _scale(table, table.shape[1:])})
        whole = np.asarray(table)
        return cls({n: whole[n].shape[1:] for n in names}, {n: _scale(whole[n], whole[n].shape[1:]) for n in names})

    def __call__(self, table: NDArray[Any]) -> Any:
        """The tensor of a table's rows [B, ...], or a tuple of those of several maps."""
        if "" in self.parts:
            return _scaled(table, *self.parts[""])
        return tuple(_scaled(table[name], *part) for name, part in self.parts.items())


def _scaled(x: NDArray[Any], mean: Matrix, factor: Matrix) -> Tensor:
    return torch.from_numpy((x.astype(np.float32, copy=False) - mean) * factor)


def _scale(table: Source, shape: tuple[int, ...]) -> tuple[Matrix, Matrix]:
    """Mean and one over the spread of each column or channel, shaped to broadcast over [N, ...].

    Columns that hardly vary stay small: a typical variance is added to each, as in `Scale`.
    """
    mean, variance = moments(table)
    typical = float(np.median(variance)) or float(variance.mean()) or 1.0
    beside = (-1, *[1] * (len(shape) - 1))
    # Doubled, so that a column of typical variance comes to a spread of one.
    factor = np.sqrt(2 / (variance + typical)).astype(np.float32)
    return mean.astype(np.float32).reshape(beside), factor.reshape(beside)

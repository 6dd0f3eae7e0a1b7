"""What every head promises: `__init__` stores, `fit` learns, learned names end in `_`."""

from __future__ import annotations

import ast
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twofold import registry
from twofold.errors import BadData, BadSetting, NotFitted, unknown

if TYPE_CHECKING:
    from twofold.heads._pieces import Source

Matrix = NDArray[np.float32]
Labels = NDArray[np.int64]


class Head(ABC):
    """Features in, class scores out.

    Attributes:
        classes_: int64 [K], the labels seen in `fit`, ascending; columns of the scores.
        log_odds: whether the scores are logarithms of probabilities up to a constant.
        maps: whether it reads maps [N, C, h, w] (pool 0) in place of rows [N, D].
        several: whether it reads several maps at once, as `side_by_side` puts them together.
    """

    classes_: Labels
    log_odds: bool = False
    maps: bool = False
    several: bool = False

    @abstractmethod
    def fit(self, x: ArrayLike, y: ArrayLike, *, val: tuple[ArrayLike, ArrayLike] | None = None) -> Self:
        """Learn from features [N, D] and labels int [N].

        Args:
            x, y: training features and labels.
            val: held-out features and labels on which what the head leaves open (a strength, a k) is chosen.
        """

    @abstractmethod
    def scores(self, x: ArrayLike) -> Matrix:
        """Class scores float32 [N, K], larger = likelier, columns as in `classes_`."""

    @abstractmethod
    def settled(self) -> Head:
        """An unfitted head in which everything that `fit` chose on val is fixed."""

    @property
    def choice(self) -> dict[str, Any]:
        """What `fit` chose on val, by name."""
        return {}

    def predict(self, x: ArrayLike) -> Labels:
        """The likeliest label of each row, int64 [N]."""
        labels: Labels = self.classes_[self.scores(x).argmax(1)]
        return labels

    def loss(self, scores: Matrix, y: ArrayLike) -> float:
        """Mean squared distance of scores [N, K] to the class indicators of labels int [N]; of log-odds, by softmax.

        For comparing answers that are right equally often.
        """
        wanted = (np.asarray(y)[:, None] == self.classes_).astype(np.float64)
        guess = _softmax(scores) if self.log_odds else scores
        return float(np.square(guess - wanted).mean())

    def probabilities(self, scores: Matrix) -> NDArray[np.float64]:
        """Class probabilities [N, K] of scores [N, K]: the softmax of log-odds, else the nearest probabilities."""
        return _softmax(scores) if self.log_odds else _nearest_probabilities(scores)

    def check_fitted(self) -> None:
        """Raise `NotFitted` before `fit`."""
        if not hasattr(self, "classes_"):
            raise NotFitted(f"{type(self).__name__} was asked for scores before it learned. Call fit(x, y) first.")


def _softmax(scores: Matrix) -> NDArray[np.float64]:
    """Probabilities [N, K] of log-odds."""
    odds = np.exp(scores.astype(np.float64) - scores.max(1, keepdims=True))
    chances: NDArray[np.float64] = odds / odds.sum(1, keepdims=True)
    return chances


def _nearest_probabilities(scores: Matrix) -> NDArray[np.float64]:
    """The point of the simplex nearest to each row: one number is taken off all scores, what falls below 0 is 0.

    Shares of votes stay as they are (Duchi et al. 2008, figure 1).
    """
    descending = -np.sort(-scores.astype(np.float64), axis=1)
    offsets = (descending.cumsum(1) - 1) / np.arange(1, scores.shape[1] + 1)
    kept = (descending > offsets).sum(1, keepdims=True)
    nearest: NDArray[np.float64] = np.maximum(scores - np.take_along_axis(offsets, kept - 1, 1), 0)
    return nearest


def load(name: str) -> Head:
    """A head by the name of its file, with its usual settings or those that follow it: `attention?blocks=2`.

    Raises:
        UnknownName, BadSetting: no such head, or a setting that it does not have; the message says which there are.
    """
    file, _, told = name.partition("?")
    build = registry.find("heads", file).build
    known = inspect.signature(build).parameters
    given = {}
    for option in filter(None, told.split("&")):
        key, _, value = option.partition("=")
        if key not in known:
            raise unknown(f"setting of head {file}", key, known)
        given[key] = _literal(value)
    try:
        head: Head = build(**given)
    except (TypeError, ValueError) as error:
        raise BadSetting(f"--head {name}: {error}. Its settings are {', '.join(known)}.") from error
    return head


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def side_by_side(maps: Mapping[str, ArrayLike]) -> NDArray[Any]:
    """Several maps [N, C, h, w] of the same images, by the names of their cells, as one table [N].

    A row holds all maps of an image, a field [C, h, w] each, so rows are taken and joined as those of any array.
    """
    arrays = {name: np.asarray(values, dtype=np.float32) for name, values in maps.items()}
    for name, values in arrays.items():
        if values.ndim != 4:
            raise BadData(f"{name} has shape {values.shape}; maps [N, C, h, w] are needed. Read them unpooled.")
    if len({len(values) for values in arrays.values()}) != 1:
        told = ", ".join(f"{name} {len(values)}" for name, values in arrays.items())
        raise BadData(f"Maps that stand side by side must be of the same images; there are rows of {told or 'none'}.")
    table = np.empty(len(values), dtype=[(name, np.float32, values.shape[1:]) for name, values in arrays.items()])
    for name, values in arrays.items():
        table[name] = values
    return table


def features(x: ArrayLike, *, maps: bool = False, several: bool = False) -> NDArray[Any]:
    """Check features and bring them to float32 [N, D], to [N, C, h, w] where the head reads maps.

    Several maps stay the table that `side_by_side` made.

    Raises:
        BadData: not a table of numbers, or a value that is not finite.
    """
    table = np.asarray(x)
    fields = table.dtype.names or ()
    if several and not fields:
        raise BadData(
            f"Features have shape {table.shape}; this head reads several maps side by side. Give it several blocks or "
            "noise steps."
        )
    if not several:
        _check_single(table.dtype)
    parts = [table[name] for name in fields] if several else [_numbers(table, maps)]
    bad = ~np.logical_and.reduce([np.isfinite(part.reshape(len(table), -1)).all(1) for part in parts])
    if bad.any():
        raise BadData(
            f"{int(bad.sum())} of {len(table)} feature rows hold a value that is not finite. Extract them again."
        )
    return table if several else parts[0]


def _numbers(table: NDArray[Any], maps: bool) -> Matrix:
    """Rows or maps in single precision."""
    numbers = table.astype(np.float32, copy=False)
    _check_shape(table.shape, maps)
    return numbers


def table_of(x: Any, *, maps: bool = False) -> Source:
    """A table of rows [N, D] or maps [N, C, h, w] as it is, wherever it lies; anything else becomes an array.

    Values are checked where they are read.

    Raises:
        BadData: not a table of numbers.
    """
    table = x if hasattr(x, "shape") and hasattr(x, "dtype") else np.asarray(x, dtype=np.float32)
    _check_single(table.dtype)
    _check_shape(table.shape, maps)
    kind = getattr(table.dtype, "kind", None)
    found: Source = table if kind in ("f", "i", "u") else np.asarray(table, dtype=np.float32)
    return found


def labelled(x: Any, y: ArrayLike, *, maps: bool = False) -> tuple[Source, Labels, Labels]:
    """Check labels and the shape of a table.

    Returns:
        the table as from `table_of`, classes int64 [K] ascending, and each row's position in them int64 [N].
    """
    table = table_of(x, maps=maps)
    return table, *_classes(y, table.shape[0])


def positions_of(y: ArrayLike, classes: Labels) -> Labels:
    """Positions of labels in ascending classes, -1 for a label that is not among them, int64 [N]."""
    labels = np.asarray(y)
    places = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    found: Labels = np.where(classes[places] == labels, places, -1)
    return found


def examples(
    x: ArrayLike, y: ArrayLike, *, maps: bool = False, several: bool = False
) -> tuple[NDArray[Any], Labels, Labels]:
    """Check features and labels.

    Returns:
        features as from `features`, classes int64 [K] ascending, and each row's position in them int64 [N].
    """
    table = features(x, maps=maps, several=several)
    return table, *_classes(y, len(table))


def _classes(y: ArrayLike, rows: int) -> tuple[Labels, Labels]:
    """The classes of so many labels, and each one's position in them."""
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise BadData(f"Labels are {labels.dtype} of shape {labels.shape}; whole numbers, one a row, are needed.")
    if len(labels) != rows:
        raise BadData(f"There are {rows} feature rows and {len(labels)} labels. Give one label a row.")
    classes, positions = np.unique(labels.astype(np.int64), return_inverse=True)
    if len(classes) < 2:
        raise BadData(f"All {len(labels)} labels are the same; a head needs two classes or more.")
    return classes, positions.astype(np.int64)


def _check_single(dtype: Any) -> None:
    fields = getattr(dtype, "names", None) or ()
    if fields:
        raise BadData(f"Features are {len(fields)} maps; this head reads one table. Give it one block and noise step.")


def _check_shape(shape: tuple[int, ...], maps: bool) -> None:
    if maps and len(shape) != 4:
        raise BadData(f"Features have shape {shape}; this head needs maps [N, C, h, w]. Read them unpooled (--pool 0).")
    if not maps and len(shape) != 2:
        raise BadData(f"Features have shape {shape}; this head needs rows [N, D]. Pool maps first (--pool 1).")

"""Rows of features that need not be in memory: what heads learn from where a store is larger than memory.

A table here has a shape and a dtype and gives rows by slices, as a NumPy array does; so heads read both alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Unread(ABC):
    """Rows that are read when they are asked for.

    Attributes:
        shape: [N, ...].
        dtype: of the numbers.
        memory: bytes of rows that a reader may hold at once.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    memory: int

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """What all rows would take in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Some rows: a slice, or their numbers."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return self._slice(start, stop) if step == 1 else self._take(np.arange(start, stop, step))
        return self._take(np.asarray(rows))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All rows: for readers that need them at once."""
        return self[:].astype(dtype or self.dtype, copy=False)

    @abstractmethod
    def _slice(self, start: int, stop: int) -> NDArray[Any]: ...

    @abstractmethod
    def _take(self, rows: NDArray[np.int64]) -> NDArray[Any]: ...


class OnDisk(Unread):
    """An array of a store.

    Args:
        shape, dtype, memory: see `Unread`.
        rows: of a chunk.
        read: gives the rows of a chunk by its number.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, memory: int, rows: int, read: Callable[[int], NDArray[Any]]
    ) -> None:
        self.shape, self.dtype, self.memory = tuple(shape), np.dtype(dtype), memory
        self._rows, self._read = rows, read

    def _slice(self, start: int, stop: int) -> NDArray[Any]:
        return self._take(np.arange(start, stop))

    def _take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        chunks = rows // self._rows
        for number in np.unique(chunks):
            here = chunks == number
            found[here] = self._read(int(number))[rows[here] - number * self._rows]
        return found


class Below(Unread):
    """Tables one below the other."""

    def __init__(self, *parts: NDArray[Any] | Unread) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.shape, self.dtype = (int(self._starts[-1]), *parts[0].shape[1:]), np.dtype(parts[0].dtype)
        self.memory = min(part.memory for part in parts if isinstance(part, Unread))

    def _slice(self, start: int, stop: int) -> NDArray[Any]:
        found = np.empty((max(stop - start, 0), *self.shape[1:]), self.dtype)
        for part, first in zip(self._parts, self._starts, strict=False):
            begin, end = max(start, first), min(stop, first + len(part))
            if begin < end:
                found[begin - start : end - start] = part[begin - first : end - first]
        return found

    def _take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for part, first in zip(self._parts, self._starts, strict=False):
            here = (rows >= first) & (rows < first + len(part))
            if here.any():
                found[here] = part[rows[here] - first]
        return found


class Some(Unread):
    """Some rows of a table, by their numbers."""

    def __init__(self, whole: Unread, rows: NDArray[np.int64]) -> None:
        self._whole, self._rows = whole, rows
        self.shape, self.dtype, self.memory = (len(rows), *whole.shape[1:]), whole.dtype, whole.memory

    def _slice(self, start: int, stop: int) -> NDArray[Any]:
        return self._whole[self._rows[start:stop]]

    def _take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return self._whole[self._rows[rows]]


def below(tables: Sequence[NDArray[Any] | Unread]) -> Any:
    """Tables as one: in memory where all are."""
    if len(tables) == 1:
        return tables[0]
    return Below(*tables) if any(isinstance(table, Unread) for table in tables) else np.concatenate(tables)


def some(table: NDArray[Any] | Unread, rows: NDArray[np.int64]) -> Any:
    """Some rows of a table: in memory where it is, or where they are few enough."""
    if not isinstance(table, Unread):
        return table[rows]
    chosen = Some(table, rows)
    return chosen if chosen.nbytes > table.memory else chosen[:]

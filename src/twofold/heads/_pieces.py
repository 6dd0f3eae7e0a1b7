"""Tables read in pieces of rows, so that solvers need little memory and a table need not fit into it.

A table is whatever has a shape and a dtype and gives rows by slices: a NumPy array, a memory map, a Zarr array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from twofold.errors import BadData

ENTRIES = 1 << 20  # numbers of a piece: 4 MB in single precision, which a processor's cache still holds
FEWEST = 64  # rows of a piece, however wide they are
HELD = 1 << 28  # bytes of rows held at once where a table that is not in memory does not say


class Source(Protocol):
    """A table."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, ...]."""

    @property
    def dtype(self) -> Any:
        """Of its numbers."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Some rows as an array."""


def piece_rows(table: Source, entries: int = ENTRIES) -> int:
    """Rows of a piece."""
    return max(entries // max(math.prod(table.shape[1:]), 1), FEWEST)


def pieces(
    table: Source, *, entries: int = ENTRIES, every: int = 1, check: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """Where each piece stands, and its rows as float32 [n, ...].

    The tensor is the caller's to change, until the next piece takes its place.

    Args:
        table: rows [N, ...].
        entries: numbers of a piece.
        every: only every so-many-th piece is read.
        check: refuse values that are not finite.

    Raises:
        BadData: such a value.
    """
    rows = min(piece_rows(table, entries), table.shape[0])
    place = torch.empty(rows, *table.shape[1:])
    for start in range(0, table.shape[0], max(rows, 1) * every):
        there = slice(start, min(start + rows, table.shape[0]))
        piece = place[: there.stop - start].copy_(as_tensor(table[there]))
        # The sum tells at the cost of one look; it may overflow by itself, so the rows are counted before refusing.
        if check and not torch.isfinite(piece.sum()):
            _refuse(table)
        yield there, piece


def doubled(some: Iterable[tuple[slice, Tensor]]) -> Iterator[tuple[slice, Tensor]]:
    """Pieces in double precision, in one place that is used again."""
    place: Tensor | None = None
    for rows, x in some:
        place = torch.empty(x.shape, dtype=torch.float64) if place is None else place
        yield rows, place[: len(x)].copy_(x)


def taken(table: Source, wanted: Iterable[NDArray[np.int64]]) -> Iterator[NDArray[Any]]:
    """The rows of every update, by their numbers.

    From disk those of many updates are read at once and in the disk's order, as many as the table's `memory` allows:
    the updates are the same, whatever that is.
    """
    if isinstance(table, np.ndarray):
        yield from (table[rows] for rows in wanted)
        return
    fit = max(getattr(table, "memory", HELD) // (math.prod(table.shape[1:]) * table.dtype.itemsize), 1)
    read: Any = getattr(table, "oindex", table)  # Zarr's word for rows by their numbers
    for group in _grouped(wanted, fit):
        yield from _from_one_reading(read, group)


def _from_one_reading(read: Any, group: list[NDArray[np.int64]]) -> Iterator[NDArray[Any]]:
    """By itself, so that what it holds is let go of before the next reading."""
    numbers = np.unique(np.concatenate(group))
    held = read[numbers]
    for rows in group:
        yield held[np.searchsorted(numbers, rows)]


def _grouped(wanted: Iterable[NDArray[np.int64]], fit: int) -> Iterator[list[NDArray[np.int64]]]:
    """Updates of at most `fit` rows together, at least one of them."""
    group: list[NDArray[np.int64]] = []
    for rows in wanted:
        if group and sum(map(len, group)) + len(rows) > fit:
            yield group
            group = []
        group.append(rows)
    if group:
        yield group


def as_tensor(values: Any) -> Tensor:
    """An array as a tensor; what may not be written to (a memory map) is copied, since torch has no such tensors."""
    array = np.asarray(values)
    return torch.from_numpy(array if array.flags.writeable and min(array.strides, default=0) >= 0 else array.copy())


def product(x: Tensor, weights: Tensor) -> Tensor:
    """Rows [n, D] times weights [K, D] -> [n, K].

    In single precision by oneDNN where torch has it: on processors that torch's own BLAS does not know it is twice as
    fast, and on others no slower.
    """
    if x.dtype == torch.float32 and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return functional.linear(x.to_mkldnn(), weights.to_mkldnn()).to_dense()
    return x @ weights.T


def product_and_back(x: Tensor, weights: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """As `product`, and what brings a slope of it [n, K] back to the weights [K, D]: that slope turned, times x."""
    if x.dtype != torch.float32 or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return x @ weights.T, lambda slope: slope.T @ x
    own = weights.detach().requires_grad_()
    with torch.enable_grad():
        found = functional.linear(x.to_mkldnn(), own)
    return found.detach().to_dense(), lambda slope: torch.autograd.grad(found, own, slope.to_mkldnn())[0]


def _refuse(table: Source) -> None:
    """Raise if a value is not finite, and say how many rows have one."""
    bad = sum(int((~torch.isfinite(piece).flatten(1).all(1)).sum()) for _, piece in pieces(table))
    if bad:
        raise BadData(f"{bad} of {table.shape[0]} feature rows hold a value that is not finite. Extract them again.")

"""Tables read in pieces of rows, so that solvers need little memory and a table need not fit into it.

A table is whatever has a shape and a dtype and gives rows by slices: a NumPy array, a memory map, a Zarr array.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from twofold.errors import BadData

ENTRIES = 1 << 20  # numbers of a piece: 4 MB in single precision, which a processor's cache still holds
FEWEST = 64  # rows of a piece, however wide they are


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


def _refuse(table: Source) -> None:
    """Raise if a value is not finite, and say how many rows have one."""
    bad = sum(int((~torch.isfinite(piece).flatten(1).all(1)).sum()) for _, piece in pieces(table))
    if bad:
        raise BadData(f"{bad} of {table.shape[0]} feature rows hold a value that is not finite. Extract them again.")

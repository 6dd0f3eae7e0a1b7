"""Feature tables on disk: a Zarr v3 group that knows what it was made from.

    DIR/<split>/labels              int64 [N]
    DIR/<split>/index               int64 [N]
    DIR/<split>/features/<cell>     float16 [N, D] or [N, C, h, w]; cell is b<block>[_t<step>]_p<pool>

DIR is a folder, or an address such as s3://bucket/features (places.py). The group's attributes hold the key:
everything that a feature's value depends on. A store whose key differs is refused. The unit of work is a chunk of
rows of one array; a chunk that exists is whole, since chunks are written to a temporary file and renamed, and carries
a checksum, so that a flipped bit is found whenever it is read. A killed run goes on where it stopped, and several
processes can fill one store: what is made once for all of them (the store, columns, empty arrays) is made under a
lock, and never made again; where nothing can be locked, all make the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold import chunks, places, tables
from twofold.arrays import Arrays, chunk_name
from twofold.claims import Claims
from twofold.errors import BadStore, SealedSplit
from twofold.places import Place
from twofold.records import Cell
from twofold.tables import OnDisk

VERSION = 1
ROWS_PER_CHUNK = 512
LARGEST_HALF = 0x7C00  # as bits: infinity of float16, what is above is NaN


@dataclass(frozen=True)
class Table:
    """Rows of one split and cell.

    Attributes:
        x: float32 [N, D] or [N, C, h, w]; from `Store.tables` in the store's dtype, or rows that are still on disk.
        y: int64 [N] labels.
        index: int64 [N] image numbers.
    """

    x: Any
    y: NDArray[np.int64]
    index: NDArray[np.int64]

    def some(self, rows: NDArray[np.int64]) -> Table:
        """Some of the rows by their positions."""
        return Table(tables.some(self.x, rows), self.y[rows], self.index[rows])


class Store:
    """An open store; `sealed` splits can be neither read nor written through it."""

    def __init__(self, place: Place, group: Any, sealed: tuple[str, ...]) -> None:
        self.place = place
        self.sealed = sealed
        self.arrays = Arrays(place, group)
        self._columns: dict[str, NDArray[np.int64]] = {}

    @property
    def key(self) -> dict[str, Any]:
        """Everything that the features' values depend on."""
        with self.arrays.undamaged():
            return dict(self.arrays.attributes["key"])

    @property
    def about(self) -> dict[str, Any]:
        """Names for people: model, data, classes."""
        with self.arrays.undamaged():
            return dict(self.arrays.attributes["about"])

    def splits(self) -> list[str]:
        """The splits begun so far."""
        return [name for name in self.place.folders() if self.place.exists(f"{name}/zarr.json")]

    def cells(self, split: str) -> list[Cell]:
        """The cells of a split all of whose chunks are there, in order of block, step and pool."""
        return [cell for cell in self.begun(split) if not self.missing(split, cell)]

    def begun(self, split: str) -> list[Cell]:
        """The cells of a split that have an array, whole or not, in the same order."""
        self._check_open(split)
        within = f"{split}/features"
        names = [n for n in self.place.folders(within) if self.place.exists(f"{within}/{n}/zarr.json")]
        with self.arrays.undamaged(within):
            found = [Cell.parse(name) for name in names]
        return sorted(found, key=lambda c: (c.tap.block, -1 if c.tap.t is None else c.tap.t, c.pool))

    def about_cell(self, split: str, cell: Cell) -> dict[str, Any]:
        """Block name, step, sigma and pool of a cell."""
        self._check_open(split)
        path = column(split, cell)
        array = self.arrays.array(path)
        with self.arrays.undamaged(path):
            return dict(array.attrs)

    def begin_split(self, split: str, labels: NDArray[np.int64], index: NDArray[np.int64]) -> None:
        """Write a split's labels and index, or check that they are the ones there."""
        self._check_open(split)
        for name, values in (("index", index), ("labels", labels)):
            path = f"{split}/{name}"
            self.arrays.make_once(path, "c/0", partial(self.arrays.write_column, path, values))
            if not np.array_equal(self.arrays.values(path), values):
                raise BadStore(f"{self.place}/{path} is not that of this data set. Give another folder for the store.")

    def begin_cell(self, split: str, cell: Cell, row_shape: Sequence[int], about: dict[str, Any]) -> None:
        """Make a cell's empty array, or check the one that is there; row_shape is (D,) or (C, h, w)."""
        path, rows = column(split, cell), len(self.index(split))

        shape, chunk = (rows, *row_shape), (min(ROWS_PER_CHUNK, rows), *row_shape)
        make = partial(self.arrays.create, path, shape, chunk, self.key["dtype"], about)
        self.arrays.make_once(path, "zarr.json", make)
        array, there = self.arrays.array(path), self.about_cell(split, cell)
        with self.arrays.undamaged(path):
            if not about.keys() <= there.keys():
                raise ValueError(f"it does not say {', '.join(sorted(about.keys() - there.keys()))}")
            if (array.shape, str(array.dtype)) != (shape, self.key["dtype"]):
                raise ValueError(f"{array.dtype} {array.shape} instead of {self.key['dtype']} {shape}")

    def chunk_rows(self, split: str) -> list[NDArray[np.int64]]:
        """Positions of the rows of each chunk; what is computed together, whoever computes it."""
        count = len(self.index(split))
        return [np.arange(s, min(s + ROWS_PER_CHUNK, count)) for s in range(0, count, ROWS_PER_CHUNK)]

    def missing(self, split: str, cell: Cell) -> list[int]:
        """Numbers of the chunks that are not there yet."""
        path = column(split, cell)
        there = set(self.place.names(f"{path}/c")) if self.place.exists(f"{path}/zarr.json") else set()
        return [k for k in range(len(self.chunk_rows(split))) if chunk(split, cell, k) not in there]

    def has(self, split: str, cell: Cell, number: int) -> bool:
        """Whether one chunk is there now."""
        return self.place.exists(chunk(split, cell, number))

    def claims(self) -> Claims:
        """Claims among the processes that fill this store: all that see the same disk, or those of this machine."""
        return Claims(self.place.claims)

    def write_chunk(self, split: str, cell: Cell, number: int, values: NDArray[np.float32]) -> None:
        """Write the rows of one chunk, float32 [rows, ...]; a value that does not fit the dtype is an error."""
        self._check_open(split)
        dtype = self.key["dtype"]
        stored = chunks.converted(values, np.empty(values.shape, dtype))
        if not _finite(stored):
            worst = float(np.abs(values).max())
            raise BadStore(f"Features of {cell} reach {worst:.3g}, which {dtype} cannot hold. Give --dtype float32.")
        self.arrays.write(column(split, cell), number, stored)

    def labels(self, split: str) -> NDArray[np.int64]:
        """int64 [N]."""
        return self._column(split, "labels")

    def index(self, split: str) -> NDArray[np.int64]:
        """int64 [N]."""
        return self._column(split, "index")

    def read(self, split: str, cell: Cell) -> Table:
        """All rows of a cell; an unfinished one is an error."""
        self._check_whole(split, cell)
        x: NDArray[np.float32] = self.arrays.values(column(split, cell), "float32")
        return Table(x, self.labels(split), self.index(split))

    def rows(self, split: str, cell: Cell, numbers: Sequence[int]) -> NDArray[Any]:
        """The rows of some chunks, one after another, in the store's own dtype."""
        self._check_open(split)
        return np.concatenate([self.arrays.read(column(split, cell), number) for number in numbers])

    def tables(self, splits: Sequence[str], cell: Cell, memory: int) -> dict[str, Table]:
        """Several splits of a cell in the store's own dtype.

        They are in memory where together they take at most `memory` bytes of it; else they stay on disk and are read
        in pieces, a quarter of `memory` at most.
        """
        for split in splits:
            self._check_whole(split, cell)
        arrays = {split: self.arrays.array(column(split, cell)) for split in splits}
        fits = sum(array.nbytes for array in arrays.values()) <= memory
        return {s: Table(self._rows(s, cell, fits, memory // 4), self.labels(s), self.index(s)) for s in splits}

    def _rows(self, split: str, cell: Cell, fits: bool, memory: int) -> Any:
        path = column(split, cell)
        if fits:
            return self.arrays.values(path)
        array = self.arrays.array(path)
        return OnDisk(array.shape, array.dtype, memory, array.chunks[0], partial(self.arrays.read, path))

    def _check_whole(self, split: str, cell: Cell) -> None:
        missing = self.missing(split, cell)
        if missing:
            raise BadStore(
                f"{self.place} lacks {cell} of {split} ({len(missing)} chunks). Run `twofold extract` with it."
            )

    def _column(self, split: str, name: str) -> NDArray[np.int64]:
        self._check_open(split)
        path = f"{split}/{name}"
        if path not in self._columns:
            if not self.place.exists(f"{path}/zarr.json"):
                raise BadStore(f"{self.place} has no {split} split. Run `twofold extract --split {split}` into it.")
            self._columns[path] = self.arrays.values(path)
        return self._columns[path]

    def _check_open(self, split: str) -> None:
        if split in self.sealed:
            raise SealedSplit(f"The {split} split of {self.place} is sealed here: what chooses must not see it.")


def make(where: str | Path, key: dict[str, Any], about: dict[str, Any], *, sealed: tuple[str, ...] = ()) -> Store:
    """Open the store of this key in a folder or at an address, making it where there is none.

    Raises:
        BadStore: the folder holds a store of another key (the message names what differs) or something else.
    """
    import zarr

    key, place = {"version": VERSION, **key}, places.parse(where)
    if not place.exists("zarr.json"):
        _check_free(place)
        with place.locked():
            # Another process may have made it since; then it is opened and checked like any other.
            if not place.exists("zarr.json"):
                with place.reached():
                    zarr.open_group(place.opened, mode="a", zarr_format=3, attributes={"key": key, "about": about})
    opened = load(where, sealed=sealed)
    there = opened.key
    changed = [n for n in sorted({*there, *key}) if there.get(n) != key.get(n)]
    if changed:
        told = "; ".join(f"{n} is {there.get(n, 'unset')} there, {key.get(n, 'unset')} here" for n in changed)
        raise BadStore(f"The store {place} was made from something else: {told}. Give another folder, or delete it.")
    return opened


def load(where: str | Path, *, sealed: tuple[str, ...] = ()) -> Store:
    """Open a store that is there, in a folder or at an address."""
    import zarr

    place = places.parse(where)
    if not place.exists("zarr.json"):
        raise BadStore(f"{place} is not a feature store. Give what was --out of `twofold extract`.")
    try:
        group = zarr.open_group(place.opened, mode="r+")
        if "key" not in group.attrs:
            raise KeyError("key")
    except (KeyError, ValueError, TypeError) as error:
        raise BadStore(f"{place} is a damaged store: its zarr.json has no key. Delete it and extract again.") from error
    return Store(place, group, sealed)


def _check_free(place: Place) -> None:
    """Refuse a place that holds something else than a store that is being made, or whose making was killed."""
    taken = place.folder is not None and place.folder.exists() and not place.folder.is_dir()
    held = (name for listed in (place.folders, place.names) for name in listed())
    foreign = taken or any(not _begun(name) for name in held)
    # Another process may have made the store since it was looked for.
    if foreign and not place.exists("zarr.json"):
        raise BadStore(f"{place} is there and is not a feature store. Give --out a new folder.")


def _begun(name: str) -> bool:
    return name == places.LOCK or name.endswith(places.PARTIAL)


def column(split: str, cell: Cell) -> str:
    """The path of a cell's array."""
    return f"{split}/features/{cell}"


def chunk(split: str, cell: Cell, number: int) -> str:
    """The name of one chunk's file."""
    return f"{column(split, cell)}/{chunk_name(2 if cell.pool else 4, number)}"


def _finite(stored: NDArray[Any]) -> bool:
    """Whether all numbers are finite; of float16 by their bits, four times as fast."""
    if stored.dtype == np.float16 and stored.size:
        return int((stored.view(np.uint16) & 0x7FFF).max()) < LARGEST_HALF
    return bool(np.isfinite(stored).all())

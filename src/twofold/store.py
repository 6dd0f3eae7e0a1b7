"""Feature tables on disk: a Zarr v3 group that knows what it was made from.

    DIR/<split>/labels              int64 [N]
    DIR/<split>/index               int64 [N]
    DIR/<split>/features/<cell>     float16 [N, D] or [N, C, h, w]; cell is b<block>[_t<step>]_p<pool>

The group's attributes hold the key: everything that a feature's value depends on. A store whose key differs is
refused. The unit of work is a chunk of rows of one array; a chunk that exists is whole, since chunks are written
to a temporary file and renamed. So a killed run goes on where it stopped, and several processes can fill one store:
what is made once for all of them (the store, columns, empty arrays) is made under a lock, and never made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold import files
from twofold.errors import BadSetting, BadStore, SealedSplit
from twofold.records import Cell

VERSION = 1
ROWS_PER_CHUNK = 512
LOCK = ".lock"


@dataclass(frozen=True)
class Table:
    """Rows of one split and cell.

    Attributes:
        x: float32 [N, D] or [N, C, h, w].
        y: int64 [N] labels.
        index: int64 [N] image numbers.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    index: NDArray[np.int64]


class Store:
    """An open store; `sealed` splits can be neither read nor written through it."""

    def __init__(self, folder: Path, group: Any, sealed: tuple[str, ...]) -> None:
        self.folder = folder
        self.sealed = sealed
        self._group = group
        self._columns: dict[str, NDArray[np.int64]] = {}

    @property
    def key(self) -> dict[str, Any]:
        """Everything that the features' values depend on."""
        with self._undamaged():
            return dict(self._group.attrs["key"])

    @property
    def about(self) -> dict[str, Any]:
        """Names for people: model, data, classes."""
        with self._undamaged():
            return dict(self._group.attrs["about"])

    def splits(self) -> list[str]:
        """The splits begun so far."""
        return sorted(path.parent.name for path in self.folder.glob("*/zarr.json"))

    def cells(self, split: str) -> list[Cell]:
        """The cells of a split all of whose chunks are there, in order of block, step and pool."""
        self._check_open(split)
        names = [path.parent.name for path in (self.folder / split / "features").glob("*/zarr.json")]
        with self._undamaged(f"{split}/features"):
            found = [Cell.parse(name) for name in names]
        whole = [cell for cell in found if not self.missing(split, cell)]
        return sorted(whole, key=lambda c: (c.tap.block, -1 if c.tap.t is None else c.tap.t, c.pool))

    def about_cell(self, split: str, cell: Cell) -> dict[str, Any]:
        """Block name, step, sigma and pool of a cell."""
        array = self._array(split, cell)
        with self._undamaged(f"{split}/features/{cell}"):
            return dict(array.attrs)

    def begin_split(self, split: str, labels: NDArray[np.int64], index: NDArray[np.int64]) -> None:
        """Write a split's labels and index, or check that they are the ones there."""
        self._check_open(split)
        for name, values in (("index", index), ("labels", labels)):
            path = f"{split}/{name}"
            self._make_once(path, "c/0", partial(self._write_column, path, values))
            if not np.array_equal(self._values(path), values):
                raise BadStore(f"{self.folder}/{path} is not that of this data set. Give another folder for the store.")

    def begin_cell(self, split: str, cell: Cell, row_shape: Sequence[int], about: dict[str, Any]) -> None:
        """Make a cell's empty array, or check the one that is there; row_shape is (D,) or (C, h, w)."""
        path, rows = f"{split}/features/{cell}", len(self.index(split))

        def make() -> None:
            self._group.create_array(
                path, shape=(rows, *row_shape), chunks=(min(ROWS_PER_CHUNK, rows), *row_shape),
                dtype=self.key["dtype"], compressors=None, filters=None, fill_value=0, attributes=about,
                overwrite=True,
            )  # fmt: skip

        self._make_once(path, "zarr.json", make)
        array, there = self._array(split, cell), self.about_cell(split, cell)
        with self._undamaged(path):
            if not about.keys() <= there.keys():
                raise ValueError(f"it does not say {', '.join(sorted(about.keys() - there.keys()))}")
            if (array.shape, str(array.dtype)) != ((rows, *row_shape), self.key["dtype"]):
                raise ValueError(f"{array.dtype} {array.shape} instead of {self.key['dtype']} {(rows, *row_shape)}")

    def chunk_rows(self, split: str) -> list[NDArray[np.int64]]:
        """Positions of the rows of each chunk; what is computed together, whoever computes it."""
        count = len(self.index(split))
        return [np.arange(s, min(s + ROWS_PER_CHUNK, count)) for s in range(0, count, ROWS_PER_CHUNK)]

    def missing(self, split: str, cell: Cell) -> list[int]:
        """Numbers of the chunks that are not there yet."""
        folder = self.folder / split / "features" / str(cell)
        if not (folder / "zarr.json").exists():
            return list(range(len(self.chunk_rows(split))))
        rest = "/0" if cell.pool else "/0/0/0"
        return [k for k in range(len(self.chunk_rows(split))) if not (folder / f"c/{k}{rest}").exists()]

    def write_chunk(self, split: str, cell: Cell, number: int, values: NDArray[np.float32]) -> None:
        """Write the rows of one chunk, float32 [rows, ...]; a value that does not fit the dtype is an error."""
        self._check_open(split)
        # A chunk of zeros must be a file too, since a file is what says "done".
        array = self._array(split, cell).with_config({"write_empty_chunks": True})
        with np.errstate(over="ignore"):
            stored = values.astype(array.dtype)
        if not np.isfinite(stored).all():
            worst = float(np.abs(values).max())
            raise BadStore(
                f"Features of {cell} reach {worst:.3g}, which {array.dtype} cannot hold. Give --dtype float32."
            )
        rows = self.chunk_rows(split)[number]
        array[rows[0] : rows[-1] + 1] = stored

    def labels(self, split: str) -> NDArray[np.int64]:
        """int64 [N]."""
        return self._column(split, "labels")

    def index(self, split: str) -> NDArray[np.int64]:
        """int64 [N]."""
        return self._column(split, "index")

    def read(self, split: str, cell: Cell) -> Table:
        """All rows of a cell; an unfinished one is an error."""
        missing = self.missing(split, cell)
        if missing:
            raise BadStore(
                f"{self.folder} lacks {cell} of {split} ({len(missing)} chunks). Run `twofold extract` with it."
            )
        x = self._values(f"{split}/features/{cell}").astype(np.float32)
        return Table(x, self.labels(split), self.index(split))

    def _make_once(self, path: str, mark: str, make: Callable[[], None]) -> None:
        """Make an array unless the file that says it is whole, `mark`, is there.

        Looking comes before locking, so that a finished store can be read where it may not be written. What a kill
        left without its mark is made afresh; that is safe under the lock alone.
        """
        whole = self.folder / path / mark
        if whole.exists():
            return
        with files.locked(self.folder / LOCK):
            if not whole.exists():
                make()

    def _write_column(self, path: str, values: NDArray[np.int64]) -> None:
        import zarr

        with zarr.config.set({"array.write_empty_chunks": True}):
            rows = (max(len(values), 1),)
            self._group.create_array(path, data=values, chunks=rows, compressors=None, overwrite=True)

    def _column(self, split: str, name: str) -> NDArray[np.int64]:
        self._check_open(split)
        path = f"{split}/{name}"
        if path not in self._columns:
            if not (self.folder / path / "zarr.json").exists():
                raise BadStore(f"{self.folder} has no {split} split. Run `twofold extract --split {split}` into it.")
            self._columns[path] = self._values(path)
        return self._columns[path]

    def _array(self, split: str, cell: Cell) -> Any:
        self._check_open(split)
        path = f"{split}/features/{cell}"
        with self._undamaged(path):
            array = self._group[path]
            if not hasattr(array, "shape"):
                raise ValueError("it is a group, not an array")
            return array

    def _values(self, path: str) -> NDArray[Any]:
        """All rows of an array."""
        with self._undamaged(path):
            values: NDArray[Any] = self._group[path][:]
            return values

    @contextmanager
    def _undamaged(self, path: str = "") -> Iterator[None]:
        """Say which part of the store is damaged where zarr cannot read it."""
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, BadSetting) as error:
            where = self.folder / path
            raise BadStore(
                f"{where} is damaged ({str(error) or type(error).__name__}). Delete that folder and extract again."
            ) from error

    def _check_open(self, split: str) -> None:
        if split in self.sealed:
            raise SealedSplit(f"The {split} split of {self.folder} is sealed here: what chooses must not see it.")


def make(folder: Path, key: dict[str, Any], about: dict[str, Any], *, sealed: tuple[str, ...] = ()) -> Store:
    """Open the store of this key in `folder`, making it where there is none.

    Raises:
        BadStore: the folder holds a store of another key (the message names what differs) or something else.
    """
    import zarr

    key = {"version": VERSION, **key}
    if not (folder / "zarr.json").exists():
        _check_free(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder / LOCK):
            # Another process may have made it since; then it is opened and checked like any other.
            if not (folder / "zarr.json").exists():
                zarr.open_group(str(folder), mode="a", zarr_format=3, attributes={"key": key, "about": about})
    opened = load(folder, sealed=sealed)
    there = opened.key
    changed = [n for n in sorted({*there, *key}) if there.get(n) != key.get(n)]
    if changed:
        told = "; ".join(f"{n} is {there.get(n, 'unset')} there, {key.get(n, 'unset')} here" for n in changed)
        raise BadStore(f"The store {folder} was made from something else: {told}. Give another folder, or delete it.")
    return opened


def load(folder: str | Path, *, sealed: tuple[str, ...] = ()) -> Store:
    """Open a store that is there."""
    import zarr

    folder = Path(folder)
    if not (folder / "zarr.json").exists():
        raise BadStore(f"{folder} is not a feature store. Give the --out folder of `twofold extract`.")
    try:
        group = zarr.open_group(str(folder), mode="r+")
        if "key" not in group.attrs:
            raise KeyError("key")
    except (KeyError, ValueError, TypeError) as error:
        raise BadStore(
            f"{folder} is a damaged store: its zarr.json has no key. Delete it and extract again."
        ) from error
    return Store(folder, group, sealed)


def _check_free(folder: Path) -> None:
    """Refuse a folder that holds something else than a store that is being made, or whose making was killed."""
    foreign = folder.exists() and (not folder.is_dir() or any(not _begun(p) for p in folder.iterdir()))
    # Another process may have made the store since it was looked for.
    if foreign and not (folder / "zarr.json").exists():
        raise BadStore(f"{folder} is there and is not a feature store. Give --out a new folder.")


def _begun(path: Path) -> bool:
    return path.name == LOCK or path.suffix == ".partial"

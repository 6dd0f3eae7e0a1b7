"""The arrays of a store's Zarr group: made once, cut into chunks by rows, every chunk with its checksum.

In a local folder chunks go through `chunks`, elsewhere through zarr; the bytes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from twofold import chunks
from twofold.errors import BadSetting, BadStore
from twofold.places import Place

THREADS = 4  # that read a table: beyond that a disk's cache is no faster


@final
class Arrays:
    """What is below one Zarr group; paths are relative to it."""

    def __init__(self, place: Place, group: Any) -> None:
        self.place = place
        self._group = group
        self._known: dict[str, Any] = {}

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the group itself."""
        with self.undamaged():
            return dict(self._group.attrs)

    def array(self, path: str) -> Any:
        """The zarr array at a path; its description is read once."""
        if path not in self._known:
            with self.undamaged(path), self.place.reached():
                array = self._group[path]
                if not hasattr(array, "shape"):
                    raise ValueError("it is a group, not an array")
            self._known[path] = array
        return self._known[path]

    def make_once(self, path: str, mark: str, make: Callable[[], None]) -> None:
        """Make an array unless the file that says it is whole, `mark`, is there.

        Looking comes before locking, so that a finished store can be read where it may not be written. What a kill
        left without its mark is made afresh; that is safe under the lock alone.
        """
        whole = f"{path}/{mark}"
        if self.place.exists(whole):
            return
        with self.place.locked():
            if not self.place.exists(whole):
                make()

    def create(
        self, path: str, shape: Sequence[int], chunk: Sequence[int], dtype: str, attributes: dict[str, Any]
    ) -> Any:
        """An empty array.

        In a folder it replaces what is there, under the lock. Elsewhere another process may write to it by now, so
        that one which is there stays; it is the same.
        """
        from zarr.codecs import Crc32cCodec
        from zarr.errors import ContainsArrayError

        with self.place.reached():
            try:
                return self._group.create_array(
                    path, shape=shape, chunks=chunk, dtype=dtype, compressors=[Crc32cCodec()], filters=None,
                    fill_value=0, attributes=attributes, overwrite=self.place.folder is not None,
                )  # fmt: skip
            except ContainsArrayError:
                return self._group[path]

    def write_column(self, path: str, values: NDArray[np.int64]) -> None:
        """Make an array of one chunk, int64 [N]."""
        array = self.create(path, values.shape, (max(len(values), 1),), "int64", {})
        with self.place.reached():
            array.with_config({"write_empty_chunks": True})[:] = values

    def write(self, path: str, number: int, values: NDArray[Any]) -> None:
        """Write the rows of one chunk, [rows, ...] in the array's own dtype."""
        array = self.array(path)
        if self.place.folder is not None and chunks.plain(array):
            # The last chunk is as long as the others, like zarr's.
            lacking = array.chunks[0] - len(values)
            whole = np.pad(values, [(0, lacking), *[(0, 0)] * (values.ndim - 1)]) if lacking else values
            chunks.write(self.place.folder / path / chunk_name(values.ndim, number), whole)
            return
        start = number * array.chunks[0]
        with self.place.reached():
            # A chunk of zeros must be a file too, since a file is what says "done".
            array.with_config({"write_empty_chunks": True})[start : start + len(values)] = values

    def read(self, path: str, number: int, *, room: chunks.Raw | None = None) -> NDArray[Any]:
        """The rows of one chunk, [rows, ...].

        Args:
            path, number: which one.
            room: a `chunks.buffer` to read into, so that the next chunk read takes the place of this one.
        """
        array = self.array(path)
        start = number * array.chunks[0]
        rows = min(array.chunks[0], array.shape[0] - start)
        values: NDArray[Any]
        with self.undamaged(path), self.place.reached():
            if self.place.folder is None or not chunks.plain(array):
                values = array[start : start + rows]
                return values
            room = chunks.buffer(array) if room is None else room
            chunks.read(self.place.folder / path / chunk_name(array.ndim, number), room)
            values = room.view(array.dtype).reshape(array.chunks)[:rows]
            return values

    def values(self, path: str, dtype: str | None = None) -> NDArray[Any]:
        """All rows of an array; they are converted chunk by chunk, while each is in the processor's cache."""
        array = self.array(path)
        if self.place.folder is None or not chunks.plain(array):
            with self.undamaged(path), self.place.reached():
                there: NDArray[Any] = array[:]
                return chunks.converted(there, np.empty(there.shape, dtype)) if dtype else there
        found, rows = np.empty(array.shape, dtype or array.dtype), array.chunks[0]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(partial(self._fill_rows, path, found), range(-(-array.shape[0] // rows))))
        return found

    def _fill_rows(self, path: str, found: NDArray[Any], number: int) -> None:
        """Read one chunk to its place among all rows."""
        array = self.array(path)
        place = found[number * array.chunks[0] : (number + 1) * array.chunks[0]]
        whole = len(place) == array.chunks[0] and found.dtype == array.dtype
        room = place.reshape(-1).view(np.uint8) if whole else chunks.buffer(array)
        values = self.read(path, number, room=room)
        if not whole:
            chunks.converted(values, place)

    @contextmanager
    def undamaged(self, path: str = "") -> Iterator[None]:
        """Say which part of the store is damaged where it cannot be read."""
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, BadSetting) as error:
            where = f"{self.place}/{path}".rstrip("/")
            raise BadStore(
                f"{where} is damaged ({str(error) or type(error).__name__}). Delete that folder and extract again."
            ) from error


def chunk_name(dimensions: int, number: int) -> str:
    """The name of a chunk's file within its array: rows are split, nothing else is."""
    return "/".join(["c", str(number), *["0"] * (dimensions - 1)])

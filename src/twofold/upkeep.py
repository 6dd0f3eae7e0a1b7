"""Looking after a store: what it holds, whether all of it is whole, and what can go.

Checksums are of two kinds. Every chunk carries a CRC-32C, by which damage is found (`Arrays.read`). The SHA-256 of a
column's rows, or of the whole store, says whether two stores hold the same, whoever wrote them and in which order.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from twofold import chunks, places, records
from twofold.arrays import chunk_name
from twofold.errors import BadSetting, BadStore
from twofold.records import Cell, Number
from twofold.store import Store

SHOWN = 32  # hexadecimal digits of a SHA-256
WHOLE, MISSING, DAMAGED = "whole", "missing", "damaged"
TABLES = ("labels", "index")
ABOUT = {"block": int, "name": str, "t": Number | None, "sigma": Number | None, "pool": int}
CHUNK = re.compile(r"(?P<array>[^/]+/(labels|index|features/[^/]+))/(?P<chunk>c(/\d+)+)")
UNFINISHED = re.compile(r".*\.[0-9a-f]{32}" + re.escape(places.PARTIAL))


@dataclass(frozen=True)
class Column:
    """One array of a split: labels, index or the features of a cell.

    Attributes:
        path: within the store.
        cell: None for labels and index.
        shape, dtype: of the array.
        chunks, lacking: how many there should be, and the numbers of those that are not there.
        about: block, name, t, sigma, pool of a cell.
        checked: whether its chunks carry checksums.
    """

    path: str
    cell: Cell | None
    shape: tuple[int, ...]
    dtype: str
    chunks: int
    lacking: tuple[int, ...]
    about: dict[str, Any]
    checked: bool

    @property
    def bytes(self) -> int:
        """Of its numbers."""
        sizes = {"float16": 2, "float32": 4, "int64": 8}
        return math.prod(self.shape) * sizes.get(self.dtype, 0)


@dataclass(frozen=True)
class Verdict:
    """What is true of a column: `whole`, `missing` (chunks) or `damaged`, why, and the checksum of its rows."""

    path: str
    state: str
    why: str = ""
    checksum: str | None = None


def paths(store: Store) -> list[str]:
    """Where columns are, or should be, in the order of splits, then of the network."""
    found = []
    for split in store.splits():
        found += [f"{split}/{name}" for name in TABLES]
        names = [n for n in store.place.folders(f"{split}/features") if _described(store, f"{split}/features/{n}")]
        found += [f"{split}/features/{name}" for name in sorted(names, key=_order)]
    return found


def column(store: Store, path: str) -> Column:
    """Look at one column without reading its rows.

    Raises:
        BadStore: its description is damaged, or is not that of a column of this store.
    """
    array, cell = store.arrays.array(path), None
    split, _, name = path.partition("/")
    with store.arrays.undamaged(path):
        about = dict(array.attrs)
        if name not in TABLES:
            cell = Cell.parse(name.removeprefix("features/"))
            _check_cell(cell, about)
        dtype = store.key["dtype"] if cell else "int64"
        rows = array.shape[0] if name == TABLES[0] else len(store.labels(split))
        if array.shape[0] != rows or str(array.dtype) != dtype:
            raise ValueError(f"{array.dtype} {array.shape} instead of {rows} rows of {dtype}")
        count = -(-array.shape[0] // array.chunks[0])
        there = set(store.place.names(f"{path}/c"))
        lacking = [k for k in range(count) if f"{path}/{chunk_name(array.ndim, k)}" not in there]
        return Column(path, cell, array.shape, dtype, count, tuple(lacking), about, chunks.checked(array))


def verify(store: Store) -> Iterator[Verdict]:
    """Read every chunk of every column and hold it against its checksum."""
    for path in paths(store):
        try:
            yield _verdict(store, path)
        except (BadStore, BadSetting) as error:
            yield Verdict(path, DAMAGED, str(error).partition(". ")[0])


def checksum(store: Store, verdicts: Sequence[Verdict]) -> str | None:
    """Of a store all of whose columns are whole: of its key and of all that they hold."""
    if not verdicts or any(v.state != WHOLE for v in verdicts):
        return None
    told = {"key": store.key, "columns": {v.path: v.checksum for v in verdicts}}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:SHOWN]


def leftovers(store: Store, *, unfinished: bool = False) -> list[str]:
    """Files and folders that nobody will read: half-written files, chunks without an array, half-made columns.

    Args:
        store: where to look.
        unfinished: columns of features that lack chunks too; an extraction would go on with them.
    """
    found = [name for name in store.place.names() if UNFINISHED.fullmatch(name) or _orphan(store, name)]
    for path in paths(store):
        table = path.rpartition("/")[2] in TABLES
        if (table or unfinished) and _described(store, path):
            try:
                half_made = bool(column(store, path).lacking)
            except BadStore:
                continue  # damaged: that is for `verify` to say, and for a person to delete
            found += [path] if half_made else []
    folders = {name for name in found if name in set(paths(store))}
    return sorted(n for n in found if not any(n.startswith(f"{f}/") for f in folders))


def clean(store: Store, *, unfinished: bool = False) -> list[str]:
    """Remove the leftovers; gives their names.

    Raises:
        BadStore: another process of this machine (of any that sees the folder) is filling the store.
    """
    with store.place.locked(), store.claims() as claims:
        if not claims.alone():
            raise BadStore(f"{store.place} is being filled by another process. Wait for it, or stop it, and try again.")
        found = leftovers(store, unfinished=unfinished)
        for name in found:
            store.place.remove(name)
        return found


def _verdict(store: Store, path: str) -> Verdict:
    found = column(store, path)
    told = hashlib.sha256(f"{found.dtype} {found.shape}".encode())
    array = store.arrays.array(path)
    room = chunks.buffer(array) if chunks.plain(array) else None
    for number in sorted(set(range(found.chunks)) - set(found.lacking)):
        told.update(store.arrays.read(path, number, room=room).tobytes())
    if found.lacking:
        return Verdict(path, MISSING, f"{len(found.lacking)} of {found.chunks} chunks")
    return Verdict(path, WHOLE, "" if found.checked else "no checksums beside its chunks", told.hexdigest()[:SHOWN])


def _check_cell(cell: Cell, about: dict[str, Any]) -> None:
    records.check(about, ABOUT)
    told = (about["block"], about["t"], about["pool"])
    if told != (cell.tap.block, cell.tap.t, cell.pool):
        raise ValueError("it says block {}, t {}, pool {}".format(*told))


def _described(store: Store, path: str) -> bool:
    return store.place.exists(f"{path}/zarr.json")


def _orphan(store: Store, name: str) -> bool:
    """Whether a file is a chunk of an array that is not there, or of none of its rows."""
    match = CHUNK.fullmatch(name)
    if not match:
        return False
    if not _described(store, match["array"]):
        return True
    try:
        array = store.arrays.array(match["array"])
        count = -(-array.shape[0] // array.chunks[0])
    except BadStore:
        return False
    number = int(match["chunk"].split("/")[1])
    return number >= count or match["chunk"] != chunk_name(array.ndim, number)


def _order(name: str) -> tuple[float, float, float, str]:
    """Cells in the order of the network, strange names last."""
    try:
        cell = Cell.parse(name)
    except (BadSetting, ValueError):
        return (math.inf, 0, 0, name)
    return (cell.tap.block, -1 if cell.tap.t is None else cell.tap.t, cell.pool, name)

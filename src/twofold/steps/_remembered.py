"""Feature tables of images without a data set: read once for each image and place, then remembered.

A row depends on the network, the tap, the pool, how it is read, and on its image alone. So rows are remembered one by
one: two fits that share images share their features, in whatever folds the images come.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold import files, settings
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone
from twofold.datasets.base import Rows
from twofold.errors import BadSetting, BadStore
from twofold.records import Cell
from twofold.steps import _fill, _images
from twofold.steps._fill import Reading

Row = NDArray[Any]
VERSION = 1


class Remembered:
    """Rows by (table, image), the latest used up to `limit` bytes of them."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._rows: OrderedDict[tuple[str, int], Row] = OrderedDict()

    def get(self, table: str, numbers: Iterable[int]) -> dict[int, Row]:
        """Those of the rows that are there."""
        found = {}
        for number in numbers:
            if (table, number) in self._rows:
                self._rows.move_to_end((table, number))
                found[number] = self._rows[table, number]
        return found

    def put(self, table: str, rows: Mapping[int, Row]) -> None:
        """Remember rows; what was not used for longest is forgotten."""
        for number, row in rows.items():
            if (table, number) not in self._rows:
                # A copy: a view would keep its whole batch alive.
                self._rows[table, number] = row.copy()
                self.size += row.nbytes
        while self.size > self.limit:
            self.size -= self._rows.popitem(last=False)[1].nbytes


REMEMBERED = Remembered(limit=2**30)
# Hooks sit in a network that threads share, and rows are remembered for all of them.
_ONE_AT_A_TIME = threading.RLock()


def load(model: str, reading: Reading) -> Backbone:
    """The backbone of a MODEL string; the last two stay in memory, unless their files changed."""
    with _ONE_AT_A_TIME:
        backbone = _loaded(model, reading.device, reading.precision, reading.compile, _stamp(model))
    reading.check_label(backbone)
    return backbone


def features(
    images: Sequence[Any], backbone: Backbone, cell: Cell, reading: Reading, memory: Path | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of images, and the numbers that stand for them.

    Args:
        images: what `_images.listed` gave.
        backbone, cell, reading: what is read, where and how.
        memory: folder in which rows are kept for later processes; None: in this one's memory alone.

    Returns:
        float32 [N, D], or [N, C, h, w] where the cell's pool is 0; and int64 [N].
    """
    key = _key(backbone, cell, reading)
    with _ONE_AT_A_TIME:
        parts = [_group(some, backbone, cell, reading, key, memory) for some in _images.groups(images)]
    rows, numbers = zip(*parts, strict=True)
    return np.concatenate(rows).astype(np.float32), np.concatenate(numbers)


def _group(
    pictures: Sequence[Any], backbone: Backbone, cell: Cell, reading: Reading, key: dict[str, Any], memory: Path | None
) -> tuple[Row, NDArray[np.int64]]:
    """The rows of some images, remembered, from disk, or read now; and their numbers."""
    numbers = [_images.own_number(p) for p in pictures]
    table = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    found = REMEMBERED.get(table, numbers)
    if memory is not None and len(found) < len(set(numbers)):
        found |= _on_disk(memory / table, set(numbers) - set(found))
    lacking = {n: p for n, p in zip(numbers, pictures, strict=True) if n not in found}
    if lacking:
        read = _read(list(lacking.values()), list(lacking), backbone, cell, reading)
        if memory is not None:
            _keep(memory / table, key, list(lacking), read)
        found |= dict(zip(lacking, read, strict=True))
    REMEMBERED.put(table, found)
    return np.stack([found[n] for n in numbers]), np.array(numbers, dtype=np.int64)


def _read(pictures: list[Any], numbers: list[int], backbone: Backbone, cell: Cell, reading: Reading) -> Row:
    """The forward passes, in the number format that rows are kept in."""
    index = np.array(numbers, dtype=np.int64)
    rows = Rows(np.zeros_like(index), index, lambda positions: [pictures[int(k)] for k in positions])
    values = _fill.read(backbone, rows, cell, reading)
    with np.errstate(over="ignore"):
        kept = values.astype(reading.dtype)
    if not np.isfinite(kept).all():
        worst = float(np.abs(values).max())
        raise BadSetting(
            f"Features of {cell} reach {worst:.3g}, which {reading.dtype} cannot hold. Give dtype float32."
        )
    return kept


def _key(backbone: Backbone, cell: Cell, reading: Reading) -> dict[str, Any]:
    """Everything but the image that a row depends on."""
    if cell.tap.t is None:
        reading = replace(reading, seed=0, draws=1)
    how = settings.as_mapping(reading, identity_only=True)
    # Features agree to rounding for any batch, and the number format is what it came to on this machine.
    how = {name: value for name, value in how.items() if name not in ("batch", "precision")}
    return {
        "version": VERSION, "backbone": backbone.identity, "preprocessing": backbone.preprocessing,
        "precision": str(backbone.placement.dtype), "cell": str(cell), **how,
    }  # fmt: skip


def _on_disk(folder: Path, wanted: set[int]) -> dict[int, Row]:
    """Those of the rows that lie in a table's folder, each file of it written whole by one call."""
    from safetensors import SafetensorError, safe_open

    found: dict[int, Row] = {}
    for path in sorted(folder.glob("rows-*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                places = {int(n): k for k, n in enumerate(file.get_tensor("images")) if int(n) in wanted}
                values = file.get_tensor("features") if places else ()
                found |= {n: values[k] for n, k in places.items()}
        except (SafetensorError, IndexError) as error:
            raise BadStore(f"{path} is damaged ({error}). Delete it; its rows are read again.") from error
    return found


def _keep(folder: Path, key: dict[str, Any], numbers: list[int], values: Row) -> None:
    """Write rows into a table's folder; any number of processes may do so at once."""
    from safetensors.numpy import save_file

    images = np.array(numbers, dtype=np.int64)
    name = hashlib.sha256(images.tobytes()).hexdigest()[:16]
    files.write_json(folder / "about.json", key)
    with files.replacing(folder / f"rows-{name}.safetensors") as temporary:
        save_file({"images": images, "features": np.ascontiguousarray(values)}, temporary)


@lru_cache(maxsize=2)
def _loaded(model: str, device: str | None, precision: str, compile: bool, stamp: tuple[Any, ...]) -> Backbone:
    return backbones.load(model, device=device, precision=precision, compile=compile)


def _stamp(model: str) -> tuple[Any, ...]:
    """When the files behind a MODEL string were last written."""
    argument = backbones.parse(model).argument
    path = Path(argument.partition("@")[2] or argument)
    seen = [path, *sorted(path.glob("*/*.safetensors"))] if argument and path.exists() else []
    return tuple((str(p), p.stat().st_mtime_ns) for p in seen)

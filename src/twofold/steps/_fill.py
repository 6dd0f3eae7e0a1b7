"""The main path: images -> raw bytes -> preprocess -> noise of that image -> features -> pool -> store.

Shared by the steps that need feature tables. One forward pass a noise step for all blocks and pools asked for,
stopped after the deepest block.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twofold import noise, pooling, runs, store
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.datasets.base import Dataset, Rows
from twofold.errors import BadSetting
from twofold.records import Cell, Tap, number_text
from twofold.store import Store

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("twofold")

# Where the papers look (P1 figure "accuracy over t": 10 .. 300 of the linear schedule), in the unit all models share.
SIGMAS = (0.01, 0.05, 0.11, 0.18, 0.31, 0.52, 1.2)


@dataclass(frozen=True)
class Reading:
    """How features are read, apart from where.

    Attributes:
        seed: of the noise.
        draws: noise samples an image; features are averaged over them.
        dtype: number format in the store.
        batch: images a forward pass.
    """

    seed: int = 0
    draws: int = 1
    dtype: str = "float16"
    batch: int = 128


def open_store(
    folder: Path, backbone: Backbone, dataset: Dataset, reading: Reading, *, sealed: tuple[str, ...] = ()
) -> Store:
    """The store in `folder` for this backbone, data and reading; see `store.make`."""
    key = {
        "backbone": backbone.identity,
        "preprocessing": backbone.preprocessing,
        "precision": str(backbone.placement.dtype).removeprefix("torch."),
        "data": dataset.fingerprint,
        "seed": reading.seed,
        "draws": reading.draws,
        "dtype": reading.dtype,
    }
    about = {"model": backbone.name, "data": dataset.name, "classes": list(dataset.classes)}
    return store.make(folder, key, about, sealed=sealed)


def cells(backbone: Backbone, blocks: Sequence[str], steps: Sequence[float | None], pools: Sequence[int]) -> list[Cell]:
    """Every (block, step, pool) asked for; pools larger than a block's map are left out, or refused if none is left."""
    chosen = backbone.blocks if list(blocks) == ["all"] else [backbone.block(b) for b in blocks]
    found = []
    for block in chosen:
        fitting = [p for p in pools if p <= block.size]
        if not fitting and list(blocks) != ["all"]:
            raise BadSetting(
                f"Pool {min(pools)} is larger than block {block.number}'s map of {block.size}x{block.size}. "
                "Give a smaller --pool."
            )
        found += [Cell(Tap(block.number, t), p) for t in steps for p in fitting]
    if not found:
        raise BadSetting(f"No block of {backbone.name} has a map as large as pool {min(pools)}. Give a smaller --pool.")
    return list(dict.fromkeys(found))


def steps(backbone: Backbone, t: Sequence[float] | None, sigma: Sequence[float] | None) -> list[float | None]:
    """The noise steps asked for, in the backbone's own unit; by default the ladder `SIGMAS`."""
    if t is not None and sigma is not None:
        raise BadSetting("Both --t and --sigma are given; they say the same thing. Give one of them.")
    if not isinstance(backbone, DiffusionBackbone):
        for asked in t or ():
            backbone.check_step(asked)
        if sigma is not None:
            backbone.step(sigma[0])
        return [None]
    if t is None:
        found = [backbone.step(s) for s in (sigma or SIGMAS)]
        return list(dict.fromkeys(found))
    for asked in t:
        backbone.check_step(asked)
    return list(dict.fromkeys(t))


def fill(
    target: Store,
    backbone: Backbone,
    dataset: Dataset,
    splits: Iterable[str],
    wanted: Sequence[Cell],
    reading: Reading,
) -> int:
    """Compute what the store lacks of `wanted`; give the number of forward passes (images x steps) that took."""
    plans = [_plan(target, backbone, dataset.build(split), split, wanted) for split in splits]
    total = sum(len(work.rows) for plan in plans for work in plan)
    if not total:
        return 0
    with runs.progress(total, f"features of {dataset.name}") as bar:
        for plan in plans:
            for work in plan:
                for cell, values in _compute(backbone, work, reading):
                    target.write_chunk(work.split, cell, work.number, values)
                bar.advance(len(work.rows), "" if work.t is None else f"t={number_text(work.t)}")
    return total


@dataclass(frozen=True)
class _Work:
    """One chunk of rows at one step: what is computed together."""

    split: str
    number: int
    rows: np.ndarray[Any, np.dtype[np.int64]]
    source: Rows
    t: float | None
    cells: tuple[Cell, ...]


def _plan(target: Store, backbone: Backbone, rows: Rows, split: str, wanted: Sequence[Cell]) -> list[_Work]:
    """The chunks and steps that are not in the store yet; makes the arrays for them."""
    target.begin_split(split, rows.labels, rows.index)
    for cell in wanted:
        target.begin_cell(split, cell, _row_shape(backbone, cell), _about(backbone, cell))
    lacking = {cell: set(target.missing(split, cell)) for cell in wanted}
    found = []
    for number, positions in enumerate(target.chunk_rows(split)):
        for t in dict.fromkeys(cell.tap.t for cell in wanted):
            todo = tuple(cell for cell in wanted if cell.tap.t == t and number in lacking[cell])
            if todo:
                found.append(_Work(split, number, positions, rows, t, todo))
    return found


def _row_shape(backbone: Backbone, cell: Cell) -> tuple[int, ...]:
    block = backbone.block(cell.tap.block)
    if cell.pool == 0:
        return (block.channels, block.size, block.size)
    return (block.channels * cell.pool**2,)


def _about(backbone: Backbone, cell: Cell) -> dict[str, Any]:
    block = backbone.block(cell.tap.block)
    return {
        "block": block.number, "name": block.name, "t": cell.tap.t, "sigma": backbone.sigma(cell.tap.t),
        "pool": cell.pool, "share": block.share,
    }  # fmt: skip


def _compute(backbone: Backbone, work: _Work, reading: Reading) -> list[tuple[Cell, Any]]:
    """The features of one chunk at one step, a float32 array [rows, ...] for each cell."""
    import torch

    blocks = sorted({cell.tap.block for cell in work.cells})
    parts: dict[Cell, list[Tensor]] = {cell: [] for cell in work.cells}
    for start in range(0, len(work.rows), reading.batch):
        positions = work.rows[start : start + reading.batch]
        x = backbone.preprocess(work.source.read(positions))
        for cell, values in _pooled(backbone, x, work.source.index[positions], work, blocks, reading).items():
            parts[cell].append(values.cpu())
    return [(cell, torch.cat(found).numpy()) for cell, found in parts.items()]


def _pooled(
    backbone: Backbone, x: Tensor, index: Any, work: _Work, blocks: list[int], reading: Reading
) -> dict[Cell, Tensor]:
    """Pooled features of one batch, averaged over draws."""
    import torch

    total: dict[Cell, Tensor] = {}
    draws = 1 if work.t is None else reading.draws
    for draw in range(draws):
        own = None
        if work.t is not None:
            own = torch.from_numpy(noise.normal(reading.seed, index, x.shape[1:], draw=draw))
        maps = backbone.features(x, work.t, blocks, own)
        for cell in work.cells:
            values = pooling.pool(maps[cell.tap.block], cell.pool)
            total[cell] = values if draw == 0 else total[cell] + values
    return {cell: values / draws for cell, values in total.items()}

"""The features that heads read: a table; rows of several cells or draws beside one another; several maps at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from twofold import places
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset
from twofold.heads import base as heads
from twofold.records import Cell
from twofold.steps import _fill, _memory, _spread, _views
from twofold.steps._rows import Place, Row
from twofold.store import Store, Table

Tables = dict[str, Table]
Timed = Callable[[int, float], None]


def read(
    place: Place, dataset: Dataset, row: Row, seed: int, *, seeds: int, folder: str, timed: Timed | None = None
) -> list[Tables]:
    """For every head that votes the splits of its features and the views of train, with the noise of one seed.

    Args:
        place, dataset, row: what is read, and how.
        seed: of the noise; seeds `seed + seeds`, `seed + 2 seeds` .. are those of further draws that stand apart.
        seeds: how many seeds there are in all.
        folder: for the stores, which are filled where they lack.
        timed: is told the forward passes (images x steps) and the seconds of a filling.
    """
    apart = row.cells[0].tap.t is not None and place.draws_as == "concatenate"
    noises = [seed + k * seeds for k in range(place.draws)] if apart else [seed]
    reading = replace(place, draws=1) if apart else place
    stores = [_store(replace(reading, seed=noise), dataset, row, folder, timed) for noise in noises]
    memory = _memory.bytes_for(place.memory)
    return [_joined(stores, cells, _splits(place), memory) for cells in row.voters]


def _splits(place: Place) -> tuple[str, ...]:
    """The three splits, and the views of train."""
    return (*datasets.SPLITS, *_views.splits(place.views))


def address(folder: str, identity: str, seed: int | None) -> str:
    """The store of a network's features among others: with the noise of one seed, or of clean images (None)."""
    return places.within(folder, f"{identity}-{'clean' if seed is None else f'seed{seed}'}")


def _store(place: Place, dataset: Dataset, row: Row, folder: str, timed: Timed | None) -> Store:
    """The store of a row's features with the noise of one seed."""
    seed: int | None = place.seed
    if row.cells[0].tap.t is None:
        # Features without noise are the same for every seed.
        place, seed = replace(place, seed=0, draws=1, label=None), None
    store = _fill.open_store(address(folder, row.backbone.identity, seed), row.backbone, dataset, place)
    started = time.monotonic()
    made = _spread.fill(store, row.backbone, dataset, _splits(place), row.cells, place)
    if made and timed is not None:
        timed(made, time.monotonic() - started)
    return store


def _joined(
    stores: Sequence[Store], cells: Sequence[Cell], splits: Sequence[str] = datasets.SPLITS, memory: int = 0
) -> Tables:
    """What one head reads of each split; several tables are joined in memory."""
    if len(stores) == len(cells) == 1:
        return stores[0].tables(splits, cells[0], memory)
    parts = {split: [store.read(split, cell) for store in stores for cell in cells] for split in splits}
    if cells[0].pool == 0:
        names = [str(cell) for cell in cells]
        return {
            split: replace(t[0], x=heads.side_by_side(dict(zip(names, (one.x for one in t), strict=True))))
            for split, t in parts.items()
        }
    # Brought to one mean variance on train, so that none drowns the others.
    factors = [np.float32(1 / max(float(table.x.var(0).mean()) ** 0.5, 1e-12)) for table in parts["train"]]
    return {
        split: replace(t[0], x=np.concatenate([one.x * f for one, f in zip(t, factors, strict=True)], 1))
        for split, t in parts.items()
    }

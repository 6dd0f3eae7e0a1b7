"""What is compared with what: networks, where and with which noise each is read, and one reading of their stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofold import runs
from twofold.analyses import cka
from twofold.backbones.base import Backbone
from twofold.records import Cell
from twofold.steps import _fill
from twofold.steps._fill import Reading
from twofold.steps._part import Drawn
from twofold.store import Store

# The second noise sample of an image is that of a seed that nobody gives: no two seeds of users share noise.
SECOND = 1 << 62


@dataclass(frozen=True, eq=False)
class Side:
    """One network as it is read.

    Attributes:
        model: the MODEL string.
        backbone: the network.
        cells: where it is read, in order of step, pool and block.
        reading: how; its seed is that of the noise.
    """

    model: str
    backbone: Backbone
    cells: tuple[Cell, ...]
    reading: Reading

    @property
    def steps(self) -> list[float | None]:
        """Noise steps, as asked."""
        return list(dict.fromkeys(cell.tap.t for cell in self.cells))

    @property
    def pools(self) -> list[int]:
        """Pools, as asked."""
        return list(dict.fromkeys(cell.pool for cell in self.cells))

    @property
    def blocks(self) -> list[int]:
        """Numbers of blocks, along the forward pass."""
        return sorted({cell.tap.block for cell in self.cells})

    @property
    def key(self) -> str:
        """Short and its own: the name of its store."""
        noise = self.reading.seed if self.steps != [None] else "clean"
        return f"{self.backbone.fingerprint[:8]}-{noise}"

    def filled(self, where: str, rows: Drawn, split: str) -> tuple[Store, int]:
        """Its store with all its cells, and how many forward passes were made now."""
        target = _fill.open_store(f"{where.rstrip('/')}/{self.key}", self.backbone, rows, self.reading)
        # By this process alone: rows that were drawn have no name by which others could open them.
        return target, _fill.fill(target, self.backbone, rows, (split,), self.cells, self.reading)


def similar(sides: Sequence[tuple[Side, Store]], split: str, least: int) -> cka.Sums:
    """HSIC of all pairs of all cells, in the order of sides and cells; see `of_columns`."""
    return of_columns([(store, cell) for side, store in sides for cell in side.cells], split, least)


def of_columns(columns: Sequence[tuple[Store, Cell]], split: str, least: int) -> cka.Sums:
    """HSIC of all pairs of cells of filled stores of the same rows; every chunk of every store is read once.

    Args:
        columns: the cells, each with its store.
        split: whose rows.
        least: rows of a minibatch, at least.
    """
    sums, chunks = cka.Sums(len(columns)), columns[0][0].chunk_rows(split)
    with runs.progress(sum(map(len, chunks)), "similarity", unit="rows") as bar:
        for piece in pieces([len(rows) for rows in chunks], least):
            count = sum(len(chunks[number]) for number in piece)
            cuts = cka.cuts(count, least)
            grams = [list(_grams(store, split, cell, piece, cuts)) for store, cell in columns]
            for k, cut in enumerate(cuts):
                sums.add(np.stack([own[k] for own in grams]), cut.stop - cut.start)
            bar.advance(count, "")
    return sums


def pieces(lengths: Sequence[int], least: int) -> list[list[int]]:
    """Numbers of chunks that are read together: at least `least` rows in each piece, or all rows in one."""
    found: list[list[int]] = [[]]
    for number in range(len(lengths)):
        if sum(lengths[k] for k in found[-1]) >= least:
            found.append([])
        found[-1].append(number)
    if len(found) > 1 and sum(lengths[k] for k in found[-1]) < least:
        short = found.pop()
        found[-1] += short
    return found


def _grams(
    store: Store, split: str, cell: Cell, piece: Sequence[int], cuts: Sequence[slice]
) -> Iterator[NDArray[np.float64]]:
    rows = store.rows(split, cell, piece)
    for cut in cuts:
        yield cka.centred_gram(rows[cut])

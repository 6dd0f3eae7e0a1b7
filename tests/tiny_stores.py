"""Stores made without any network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TypeVar

import numpy as np

from twofold import store
from twofold.records import Cell, Tap

W = TypeVar("W", str, Path)
CELL = Cell(Tap(5, 20.0), 1)
PATH = "train/features/b5_t20_p1"
ABOUT = {"block": 5, "name": "mid", "t": 20.0, "sigma": 0.08, "pool": 1, "share": 0.5}
KEY = {
    "backbone": "b", "preprocessing": {"size": 8}, "precision": "float32", "data": "d", "seed": 0, "draws": 1,
    "label": None, "dtype": "float16",
}  # fmt: skip


def filled(where: W, order: tuple[int, ...] = (0, 1, 2), values: float = 1.0) -> W:
    """1,100 rows, one cell of three numbers a row; `order` is that in which its chunks are written."""
    made = store.make(where, KEY, {"model": "m", "data": "digits", "classes": ["a", "b", "c"]})
    made.begin_split("train", np.arange(1100) % 3, np.arange(1100))
    made.begin_cell("train", CELL, (3,), ABOUT)
    for number in order:
        rows = made.chunk_rows("train")[number]
        made.write_chunk("train", CELL, number, values * np.outer(rows % 7, [1, 2, 3]).astype(np.float32))
    return where


def fill(folder: Path, ready: Path, workers: int) -> None:
    """What every worker does, in the order in which `twofold extract` does it, from the moment that all are ready."""
    (ready / str(time.monotonic_ns())).touch()
    while len(list(ready.iterdir())) < workers:
        time.sleep(0.001)
    made = store.make(folder, {"backbone": "b", "dtype": "float16"}, {})
    cells = [Cell(Tap(block, 20.0), 1) for block in range(1, 9)]
    for split in ("train", "val"):
        made.begin_split(split, np.arange(600) % 3, np.arange(600))
        for cell in cells:
            made.begin_cell(split, cell, (3,), {"block": cell.tap.block})
            for number in made.missing(split, cell):
                rows = made.chunk_rows(split)[number]
                made.write_chunk(split, cell, number, np.outer(rows % 7, [1, 2, 3]).astype(np.float32))
    for split in ("train", "val"):
        assert made.cells(split) == cells, (split, made.cells(split))

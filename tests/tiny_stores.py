"""A store of 1,100 rows made without any network."""

from __future__ import annotations

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
    """One cell of three numbers a row; `order` is that in which its chunks are written."""
    made = store.make(where, KEY, {"model": "m", "data": "digits", "classes": ["a", "b", "c"]})
    made.begin_split("train", np.arange(1100) % 3, np.arange(1100))
    made.begin_cell("train", CELL, (3,), ABOUT)
    for number in order:
        rows = made.chunk_rows("train")[number]
        made.write_chunk("train", CELL, number, values * np.outer(rows % 7, [1, 2, 3]).astype(np.float32))
    return where

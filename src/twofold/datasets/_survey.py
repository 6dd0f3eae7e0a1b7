"""Looking at every image of a data set once, on all cores, in memory that does not grow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from twofold import runs
from twofold.datasets.base import Dataset, Rows
from twofold.errors import BadData

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
AT_ONCE = 64  # images on their way for each core


@dataclass(frozen=True)
class Seen(Generic[T]):
    """One image: its split, row and number, what was measured, or why it does not decode."""

    split: str
    row: int
    index: int
    value: T | None
    problem: str = ""


def survey(dataset: Dataset, splits: Sequence[str], measure: Callable[[Tensor], T]) -> Iterator[Seen[T]]:
    """Measure every image, uint8 [3, H, W], in the order of the splits and their rows."""
    cores = os.cpu_count() or 1
    total = sum(len(dataset.build(split)) for split in splits)
    with runs.progress(total, f"look at {dataset.name}") as bar, ThreadPoolExecutor(cores) as pool:
        for split in splits:
            rows = dataset.build(split)
            for start in range(0, len(rows), AT_ONCE * cores):
                some = range(start, min(start + AT_ONCE * cores, len(rows)))
                yield from pool.map(partial(_see, split, rows, measure), some)
                bar.advance(len(some))


def _see(split: str, rows: Rows, measure: Callable[[Tensor], T], row: int) -> Seen[T]:
    index = int(rows.index[row])
    try:
        return Seen(split, row, index, measure(rows.read([row])[0]))
    except BadData as error:
        return Seen(split, row, index, None, str(error))

"""What heads cost before they are trained: operations, and systems of least squares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from twofold.heads import base as heads

CUBE = 1024  # side of the system whose solution's time is the unit
STRENGTHS = 11  # of logistic regression, and passes over the rows that each takes
PASSES = 15
# Operations of attention take so much longer than those of convolutions: 40 and 124 a nanosecond on one core, measured.
ATTENTION = 3.0
Map = tuple[int, int, int]


@dataclass(frozen=True)
class Work:
    """What heads do.

    Attributes:
        operations: multiplications and additions.
        cubes: times of solving a system of `CUBE` unknowns for all strengths.
    """

    operations: float = 0.0
    cubes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.operations + other.operations, self.cubes + other.cubes)

    def __mul__(self, times: float) -> Work:
        return Work(self.operations * times, self.cubes * times)


def of(name: str, shapes: Mapping[str, Map], pool: int, classes: int, count: tuple[int, int, int]) -> Work:
    """One head from its first fit to its last score: fitted for val, and again on train and val.

    Args:
        name: of the head, with its settings.
        shapes: [C, h, w] of the maps it reads, named as cells are.
        pool: side that these are averaged to for heads of rows.
        classes: how many.
        count: images that it learns from, is chosen by, and is asked about.
    """
    head, (train, val, test) = heads.load(name), count
    columns = sum(channels * min(pool, side) ** 2 for channels, side, _ in shapes.values())
    if hasattr(head, "network"):
        reads = tuple(shapes.items()) if head.maps or head.several else (("rows", (columns,)),)
        slower = ATTENTION if hasattr(head, "attention_heads") else 1.0
        return _trained(head, slower * _forward(name, reads, classes), count)
    if type(head).__name__ == "Ridge":
        return squares(train, columns) + squares(train + val, columns)
    if type(head).__name__ == "Logistic":
        return Work(4.0 * STRENGTHS * PASSES * (train + val) * columns * classes)
    return Work(2.0 * train * (val + test) * columns)  # nearest neighbours


def squares(rows: int, columns: int) -> Work:
    """One least squares with all its strengths: the smaller of the two Gram matrices and its tridiagonal form."""
    side = min(rows, columns)
    # In double precision, which takes twice the time.
    return Work(2 * 2.0 * rows * columns * side, (side / CUBE) ** 3)


def _trained(head: Any, forward: float, count: tuple[int, int, int]) -> Work:
    """A head trained by gradients, whose passes with gradients are taken as three."""
    from twofold.heads._training import RECIPES

    (train, val, test), recipe = count, RECIPES[head.recipe]
    updates = max((head.epochs or recipe.epochs) * math.ceil(train / recipe.batch), head.updates or recipe.updates)
    candidates = 1 if head.rate is not None and head.decay is not None else len(recipe.candidates)
    learned = 3 * min(recipe.batch, train) * updates * (candidates + 1)
    return Work(forward * (learned + val * candidates + test))


@cache
def _forward(name: str, reads: tuple[tuple[str, tuple[int, ...]], ...], classes: int) -> float:
    """Operations of one row's way through a head's network, counted in a pass of shapes alone."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    head: Any = heads.load(name)
    shape = dict(reads) if head.several else reads[0][1]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        maps = [torch.empty(1, *one) for _, one in reads]
        head.network(shape, classes)(tuple(maps) if head.several else maps[0])
    return float(counter.get_total_flops())

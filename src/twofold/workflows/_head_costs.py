"""What heads cost before they are trained: operations, and systems of least squares."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from twofold.heads import base as heads

CUBE = 1024  # side of the system whose solution's time is the unit
STRENGTHS = 11  # of logistic regression, and passes over the rows that each takes
PASSES = 15
ROUNDS = 4  # of a measurement
# A pass with gradients is taken as three forward passes: itself, and twice as much back.
BACKWARD = 3
MEASURED = 5e9  # operations of a measured pass with gradients, about
Map = tuple[int, int, int]
Reads = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Work:
    """What heads do.

    Attributes:
        operations: multiplications and additions.
        cubes: times of solving a system of `CUBE` unknowns for all strengths.
        timed, seconds: operations whose speed was measured, and what they take.
    """

    operations: float = 0.0
    cubes: float = 0.0
    timed: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __mul__(self, times: float) -> Work:
        return Work(*(getattr(self, field.name) * times for field in fields(self)))

    def duration(self, an_operation: float, a_cube: float) -> float:
        """Seconds, where an operation of unknown speed and a system take so long."""
        return (self.operations - self.timed) * an_operation + self.seconds + self.cubes * a_cube


def of(
    name: str, shapes: Mapping[str, Map], pool: int, classes: int, count: tuple[int, int, int], *, measure: bool = False
) -> Work:
    """One head from its first fit to its last score: fitted for val, and again on train and val.

    Args:
        name: of the head, with its settings.
        shapes: [C, h, w] of the maps it reads, named as cells are.
        pool: side that these are averaged to for heads of rows.
        classes: how many.
        count: images that it learns from, is chosen by, and is asked about.
        measure: time a pass of heads of maps; attention is several times slower an operation than convolutions are.
    """
    head, (train, val, test) = heads.load(name), count
    columns = sum(channels * min(pool, side) ** 2 for channels, side, _ in shapes.values())
    if hasattr(head, "network"):
        reads = tuple(shapes.items()) if head.maps or head.several else (("rows", (columns,)),)
        network = _Network.of(head, reads, classes)
        operations = _trained(head, _forward(network), count)
        if not measure or not (head.maps or head.several):
            return Work(operations)
        return Work(operations, 0.0, operations, operations * _seconds_an_operation(network))
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


def _trained(head: Any, forward: float, count: tuple[int, int, int]) -> float:
    """Operations of a head trained by gradients."""
    (train, val, test), recipe = count, head.training
    candidates = len(recipe.candidates)
    learned = BACKWARD * min(recipe.batch, train) * updates(head, train) * (candidates + 1)
    return forward * float(learned + val * candidates + test)


def updates(head: Any, train: int) -> int:
    """In how many updates a head that is trained by gradients learns from so many images."""
    epochs, an_epoch = head.training.length(train)
    return int(epochs * an_epoch)


@dataclass(frozen=True)
class _Network:
    """What a head's network hangs on; how it is trained is left out.

    Attributes:
        kind, settings: of the head.
        reads: [C, h, w] of its maps by their names, or [D] of its rows.
        classes: how many.
    """

    kind: type[Any]
    settings: tuple[tuple[str, Any], ...]
    reads: Reads
    classes: int

    @classmethod
    def of(cls, head: Any, reads: Reads, classes: int) -> _Network:
        from twofold.heads._trained import Trained

        training = {field.name for field in fields(Trained)}
        own = tuple((f.name, getattr(head, f.name)) for f in fields(head) if f.name not in training)
        return cls(type(head), own, reads, classes)

    def build(self) -> Any:
        """The module."""
        head = self.kind(**dict(self.settings))
        return head.network(dict(self.reads) if head.several else self.reads[0][1], self.classes)

    def inputs(self, images: int) -> Any:
        """What it takes of so many images, all alike."""
        import torch

        maps = tuple(torch.zeros(images, *shape) for _, shape in self.reads)
        return maps if self.kind.several else maps[0]


@cache
def _forward(network: _Network) -> float:
    """Operations of one row's way through a head's network, counted in a pass of shapes alone."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network.build()(network.inputs(1))
    return float(counter.get_total_flops())


@cache
def _seconds_an_operation(network: _Network) -> float:
    """Of a pass with gradients here, by a short measurement."""
    from twofold.heads._training import IMAGES

    forward = max(_forward(network), 1.0)
    images = max(1, min(IMAGES, round(MEASURED / (BACKWARD * forward))))
    module, inputs = network.build(), network.inputs(images)
    return fastest(lambda: module(inputs).sum().backward()) / (BACKWARD * forward * images)


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some rounds."""
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)

"""Filling one store by this process alone, by several of this machine, or by a Ray cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from twofold.backbones.base import Backbone
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset
from twofold.records import Cell
from twofold.steps import _fill, _workers
from twofold.store import Store

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True, kw_only=True)
class Task(_workers.Task):
    """What another process must know to fill the same store.

    Attributes:
        model, data: the strings that name them.
        where: folder or address of the store.
        sealed: splits that the store does not open.
        splits, cells: what is wanted.
        reading: settings of the other process: alone, with the batch and precision of this one.
    """

    model: str
    data: str
    where: str
    sealed: tuple[str, ...]
    splits: tuple[str, ...]
    cells: tuple[Cell, ...]
    reading: _fill.Reading

    def work(self, begun: Callable[[], None]) -> int:
        """Fill the store; gives the number of forward passes."""
        target, backbone, dataset = self.opened()
        begun()
        return _fill.fill(target, backbone, dataset, self.splits, self.cells, self.reading)

    def opened(self) -> tuple[Store, Backbone, Dataset]:
        """Load all that is named; the store refuses them where they are not the same here as there."""
        reading = replace(self.reading, device=self.settle(self.reading.device))
        dataset = datasets.load(self.data, on_error=reading.on_error)
        backbone = reading.load(self.model)
        return _fill.open_store(self.where, backbone, dataset, self.reading, sealed=self.sealed), backbone, dataset


def check(reading: _fill.Reading) -> None:
    """Refuse a cluster that is not there before any other work."""
    if reading.ray is not None:
        from twofold.steps import _ray

        _ray.check(reading.ray)


def fill(
    target: Store, backbone: Backbone, dataset: Dataset, splits: Iterable[str], wanted: Sequence[Cell],
    reading: _fill.Reading,
) -> int:  # fmt: skip
    """Compute what the store lacks of `wanted`, with as many processes as `reading` says.

    Gives the number of forward passes (images x steps) that took; see `_fill.fill`.
    """
    splits = tuple(splits)
    if reading.ray is None and reading.workers == 1:
        return _fill.fill(target, backbone, dataset, splits, wanted, reading)
    works = _fill.plan(target, backbone, dataset, splits, wanted, reading.seed)
    if not works:
        return 0
    precision = PRECISIONS[str(backbone.placement.dtype).removeprefix("torch.")]
    alone = replace(_plain(reading), workers=1, ray=None, precision=precision)
    task = Task(
        model=backbone.name, data=dataset.name, where=str(target.place), sealed=target.sealed, splits=splits,
        cells=tuple(wanted), reading=alone,
    )  # fmt: skip
    if reading.ray is not None:
        from twofold.steps import _ray

        return _ray.fill(task, works, reading.ray, reading.workers)
    alone = replace(alone, batch=_fill.batch(backbone, wanted, reading))
    with _workers.started(replace(task, reading=alone), reading.workers, "forward passes") as workers:
        made = _fill.fill(target, backbone, dataset, splits, wanted, alone)
        return made + sum(worker.made() for worker in workers)


def _plain(reading: _fill.Reading) -> _fill.Reading:
    """The shared settings of a verb's Config without its own."""
    return _fill.Reading(**{f.name: getattr(reading, f.name) for f in dataclasses.fields(_fill.Reading)})

"""Filling one store by this process alone, by several of this machine, or by a Ray cluster."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO

from twofold.backbones.base import Backbone
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset
from twofold.records import Cell
from twofold.steps import _fill
from twofold.store import Store

log = logging.getLogger("twofold")

HELP = "from twofold.steps import _spread; _spread.help_out()"
BEGUN = "begun"
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Task:
    """What another process must know to fill the same store.

    Attributes:
        model, data: the strings that name them.
        where: folder or address of the store.
        sealed: splits that the store does not open.
        splits, cells: what is wanted.
        reading: settings of the other process: alone, with the batch and precision of this one.
        rank: its number among those of its machine; 0 is who started them.
        threads: of the processor, for this process.
    """

    model: str
    data: str
    where: str
    sealed: tuple[str, ...]
    splits: tuple[str, ...]
    cells: tuple[Cell, ...]
    reading: _fill.Reading
    rank: int = 0
    threads: int = 0

    def opened(self) -> tuple[Store, Backbone, Dataset]:
        """Load all that is named; the store refuses them where they are not the same here as there."""
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)
        dataset = datasets.load(self.data, on_error=self.reading.on_error)
        backbone = replace(self.reading, device=self._device()).load(self.model)
        return _fill.open_store(self.where, backbone, dataset, self.reading, sealed=self.sealed), backbone, dataset

    def _device(self) -> str | None:
        """The next GPU for each process, where there are several."""
        import torch

        gpus = torch.cuda.device_count()
        return f"cuda:{self.rank % gpus}" if self.reading.device is None and gpus else self.reading.device


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
    task = Task(backbone.name, dataset.name, str(target.place), target.sealed, splits, tuple(wanted), alone)
    if reading.ray is not None:
        from twofold.steps import _ray

        return _ray.fill(task, works, reading.ray, reading.workers)
    alone = replace(alone, batch=_fill.batch(backbone, wanted, reading))
    with (
        _threads(reading.workers) as threads,
        _helpers(replace(task, reading=alone, threads=threads), reading.workers) as helpers,
    ):
        made = _fill.fill(target, backbone, dataset, splits, wanted, alone)
        return made + sum(helper.made() for helper in helpers)


def _plain(reading: _fill.Reading) -> _fill.Reading:
    """The shared settings of a verb's Config without its own."""
    return _fill.Reading(**{f.name: getattr(reading, f.name) for f in dataclasses.fields(_fill.Reading)})


@contextmanager
def _threads(workers: int) -> Iterator[int]:
    """Divide the processor's threads among workers while they are at work."""
    import torch

    all_ = torch.get_num_threads()
    share = max(all_ // workers, 1)
    torch.set_num_threads(share)
    try:
        yield share
    finally:
        torch.set_num_threads(all_)


class _Helper:
    """Another process that fills the same store; it ends when this one does, however that comes about."""

    def __init__(self, task: Task) -> None:
        self.rank = task.rank
        self._told: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._failed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-c", HELP], stdin=subprocess.PIPE, stdout=self._told, stderr=self._failed
        )
        assert self._process.stdin
        with suppress(BrokenPipeError):  # it is dead already, which `made` tells
            self._process.stdin.write(pickle.dumps(task))
            self._process.stdin.flush()

    def made(self) -> int:
        """Forward passes that it made; to be asked when the store lacks nothing."""
        if not self._lines() and self._process.poll() is None:
            self.stop()  # It still loads its network, and there is nothing left to do.
            return 0
        code = self._process.wait()
        if code:
            last = (_read(self._failed).strip().splitlines() or ["it said nothing"])[-1]
            log.warning("Worker %s ended early (exit code %s): %s. The others did its share.", self.rank, code, last)
            return 0
        made = int(self._lines()[-1])
        log.info("worker %s: %s forward passes", self.rank, f"{made:,}")
        return made

    def stop(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._told, self._failed):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()

    def _lines(self) -> list[str]:
        lines = _read(self._told).split()
        return lines[lines.index(BEGUN) :] if BEGUN in lines else []


def _read(stream: IO[bytes]) -> str:
    return os.pread(stream.fileno(), 1 << 20, 0).decode(errors="replace")


@contextmanager
def _helpers(task: Task, workers: int) -> Iterator[list[_Helper]]:
    """All workers but this process itself."""
    started: list[_Helper] = []
    try:
        for rank in range(1, workers):
            started.append(_Helper(replace(task, rank=rank)))
        yield started
    finally:
        for helper in started:
            helper.stop()


def help_out() -> None:
    """What a helper does: read its task from stdin, say that it begins, fill the store, say how much it did."""
    task: Task = pickle.load(sys.stdin.buffer)  # from the process that started this one
    threading.Thread(target=_end_together, daemon=True).start()
    target, backbone, dataset = task.opened()
    sys.stdout.write(f"{BEGUN}\n")
    sys.stdout.flush()
    made = _fill.fill(target, backbone, dataset, task.splits, task.cells, task.reading)
    sys.stdout.write(f"{made}\n")


def _end_together() -> None:
    """End when stdin does: whoever started this process has died."""
    while os.read(0, 1):
        pass
    os._exit(1)

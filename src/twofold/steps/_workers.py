"""Other processes of this machine that do a share of a step's work: started, watched, and ended with this one."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO

log = logging.getLogger("twofold")

HELP = "from twofold.steps import _workers; _workers.help_out()"
BEGUN = "begun"


@dataclass(frozen=True)
class Task(ABC):
    """What another process must know to help.

    Attributes:
        rank: its number among those of its machine; 0 is who started them.
        threads: of the processor, for this process; 0: as many as it takes.
    """

    rank: int = 0
    threads: int = 0

    @abstractmethod
    def work(self, begun: Callable[[], None]) -> int:
        """Do a share and give how much of it; `begun` is called when all is loaded."""

    def settle(self, device: str | None) -> str | None:
        """Take this process's threads; gives its device: the next GPU, where there are some and none was asked for."""
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)
        gpus = torch.cuda.device_count()
        return f"cuda:{self.rank % gpus}" if device is None and gpus else device


class Worker:
    """Another process at work; it ends when this one does, however that comes about."""

    def __init__(self, task: Task, unit: str) -> None:
        self.rank, self._unit = task.rank, unit
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
        """How much it did; to be asked when nothing is left to do."""
        if not self._lines() and self._process.poll() is None:
            self.stop()  # It still loads its network, and there is nothing left to do.
            return 0
        code = self._process.wait()
        if code:
            last = (_read(self._failed).strip().splitlines() or ["it said nothing"])[-1]
            log.warning("Worker %s ended early (exit code %s): %s. The others did its share.", self.rank, code, last)
            return 0
        made = int(self._lines()[-1])
        log.info("worker %s: %s %s", self.rank, f"{made:,}", self._unit)
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
def started(task: Task, workers: int, unit: str) -> Iterator[list[Worker]]:
    """All workers but this process itself; the processor's threads are divided among them while they are at work."""
    found: list[Worker] = []
    try:
        with _threads(workers) as threads:
            for rank in range(1, workers):
                found.append(Worker(replace(task, rank=rank, threads=threads), unit))
            yield found
    finally:
        for worker in found:
            worker.stop()


@contextmanager
def _threads(workers: int) -> Iterator[int]:
    import torch

    all_ = torch.get_num_threads()
    share = max(all_ // workers, 1)
    torch.set_num_threads(share)
    try:
        yield share
    finally:
        torch.set_num_threads(all_)


def help_out() -> None:
    """What a worker does: read its task from stdin, say that it begins, do it, say how much it did."""
    task: Task = pickle.load(sys.stdin.buffer)  # from the process that started this one
    threading.Thread(target=_end_together, daemon=True).start()

    def begun() -> None:
        sys.stdout.write(f"{BEGUN}\n")
        sys.stdout.flush()

    sys.stdout.write(f"{task.work(begun)}\n")


def _end_together() -> None:
    """End when stdin does: whoever started this process has died."""
    while os.read(0, 1):
        pass
    os._exit(1)

"""Filling one store by a Ray cluster: chunks are handed one by one to workers that load the network once.

A worker that dies costs the chunk that it was at: the chunk goes back to those to do, and another worker starts.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold import runs
from twofold.errors import BadSetting, UserError
from twofold.steps import _fill
from twofold.steps._sharing import Work

if TYPE_CHECKING:
    from twofold.steps._spread import Task

log = logging.getLogger("twofold")

WANTED = "Give HOST:PORT of a cluster, auto for the one that runs here, or local for a new one."
ANSWER = 5.0  # seconds until the head of a cluster has answered
DEATHS = 3  # of workers, one after another, until we stop to start new ones


class Filler:
    """A worker: it computes the chunks that it is told to, with what it loads for the first of them."""

    def __init__(self, task: Task, folder: Path) -> None:
        self._task, self._folder = task, folder
        self._works: dict[str, list[Work]] = {}

    def fill(self, chunk: str) -> int:
        """All steps of one chunk that are lacking; gives the number of forward passes."""
        if not self._works:
            # Loaded here and not in __init__: what goes wrong is then told as it is, not as a worker that died.
            if self._folder.is_dir():
                os.chdir(self._folder)  # paths are relative to where the command was given
            self._target, self._backbone, dataset = self._task.opened()
            size = _fill.batch(self._backbone, self._task.cells, self._task.reading)
            self._reading = replace(self._task.reading, batch=size)
            asked = (dataset, self._task.splits, self._task.cells, self._reading.seed)
            for work in _fill.plan(self._target, self._backbone, *asked):
                self._works.setdefault(work.chunk, []).append(work)
        works = self._works.get(chunk, [])
        return _fill.work_off(self._target, self._backbone, works, self._reading, "chunk")


def check(address: str) -> Any:
    """The package ray, where it is installed and somebody answers at the address.

    Ray itself would try for minutes.
    """
    # A command neither reports home nor warns of what later releases will do.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise BadSetting("--ray needs the package ray. Run `pip install twofold[ray]`, or leave --ray out.") from error
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
        except (OSError, OverflowError) as error:
            raise BadSetting(f"--ray {address} cannot be joined ({error}). {WANTED}") from error
    elif address not in ("local", "auto"):
        raise BadSetting(f"--ray {address} is no address. {WANTED}")
    return ray


def fill(task: Task, works: Sequence[Work], address: str, workers: int) -> int:
    """Have all works done; gives the number of forward passes.

    Args:
        task: what a worker must know.
        works: what the store lacks.
        address: of the cluster, or `local` for one on this machine that ends with the command.
        workers: how many; 1: as many as there are GPUs, or else machines.
    """
    sizes: dict[str, int] = {}
    for work in works:
        sizes[work.chunk] = sizes.get(work.chunk, 0) + len(work.rows)
    with _cluster(address, workers) as ray:
        crew = _Crew(ray, task, *_share(ray, workers, len(sizes)))
        with runs.progress(sum(sizes.values()), f"features of {task.data}") as bar:
            return sum(_hand_out(crew, sizes, bar))


def _hand_out(crew: _Crew, sizes: dict[str, int], bar: Any) -> Iterator[int]:
    """Keep every worker at one chunk until all are done; gives the forward passes of each."""
    todo, deaths = deque(sizes), 0
    while todo or crew.busy:
        while todo and crew.idle:
            crew.begin(todo.popleft())
        chunk, made = crew.wait()
        if made is not None:
            deaths = 0
            bar.advance(sizes[chunk])
            yield made
            continue
        todo.appendleft(chunk)
        deaths += 1
        if deaths >= DEATHS:
            raise UserError(
                f"{deaths} Ray workers died one after another, the last at chunk {chunk}. Look at Ray's logs (often "
                "memory: give a smaller --batch or fewer --workers) and run the same command again."
            )
        log.warning("A Ray worker died at chunk %s; another one does it again.", chunk)


@dataclass
class _Crew:
    """The workers: how to start one, and which are idle or at which chunk."""

    ray: Any
    task: Task
    count: int
    cpus: float
    gpus: float
    busy: dict[Any, tuple[Any, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.idle = [self.start() for _ in range(self.count)]

    def start(self) -> Any:
        """Another worker."""
        task = replace(self.task, threads=max(int(self.cpus), 1))
        return self.ray.remote(Filler).options(num_cpus=self.cpus, num_gpus=self.gpus).remote(task, Path.cwd())

    def begin(self, chunk: str) -> None:
        """Give an idle worker something to do."""
        worker = self.idle.pop()
        self.busy[worker.fill.remote(chunk)] = (worker, chunk)

    def wait(self) -> tuple[str, int | None]:
        """A chunk that somebody is through with and its forward passes; None where the worker died at it.

        Raises:
            UserError: the worker met something that no other worker would fare better with.
        """
        (done, *_), _ = self.ray.wait(list(self.busy))
        worker, chunk = self.busy.pop(done)
        try:
            made: int = self.ray.get(done)
        except self.ray.exceptions.RayActorError:
            self.idle.append(self.start())
            return chunk, None
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, UserError) else error from None
        self.idle.append(worker)
        return chunk, made


def _share(ray: Any, workers: int, chunks: int) -> tuple[int, float, float]:
    """How many workers there are, and the processors and GPUs of each."""
    there = ray.cluster_resources()
    cpus, gpus = float(there.get("CPU", 1)), float(there.get("GPU", 0))
    wanted = workers if workers > 1 else int(gpus) or sum(node["Alive"] for node in ray.nodes())
    count = min(wanted, chunks)
    if gpus:
        return count, min(1.0, cpus / count), min(1.0, gpus / count)
    return count, float(int(cpus // count)) or cpus / count, 0.0


@contextmanager
def _cluster(address: str, workers: int) -> Iterator[Any]:
    """Ray, joined to a cluster; one that was joined before stays so."""
    ray = check(address)
    if ray.is_initialized():
        yield ray
        return
    own = {"num_cpus": max(os.cpu_count() or 1, workers), "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadSetting(f"--ray {address} cannot be joined ({reason}). {WANTED}") from error
    try:
        # Ray tells of dead workers on stdout, which holds the result alone; we tell of them ourselves.
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield ray
    finally:
        ray.shutdown()

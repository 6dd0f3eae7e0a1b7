"""Several processes and Ray fill a store with the bytes of one process, whoever dies on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from twofold import places, runs
from twofold.steps import _sharing, _workers

Command = Callable[..., tuple[int, str, str]]
SECONDS = 150.0  # the longest wait for another process


def flags(run: Path, out: Path) -> list[str]:
    where = ["--split", "train,val", "--blocks", "1,5", "--t", "20,100", "--pool", "1,2", "--precision", "fp32"]
    return ["extract", "--model", str(run), "--data", "digits", "--out", str(out), *where, "--draws", "3"]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but what a killed writer left."""
    found = (f for f in sorted(folder.rglob("*")) if f.is_file() and f.suffix != places.PARTIAL)
    return {str(f.relative_to(folder)): f.read_bytes() for f in found}


@pytest.fixture(scope="module")
def alone(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    from twofold import cli

    folder = tmp_path_factory.mktemp("alone") / "store"
    assert cli.run([*flags(tiny_run, folder), "--quiet"]) == 0
    return contents(folder)


class Bar:
    def __init__(self) -> None:
        self.done = 0

    def advance(self, count: int) -> None:
        self.done += count


class Others:
    """Claims in a world where other processes have some names."""

    closed = False

    def __init__(self, theirs: set[str]) -> None:
        self.theirs = theirs

    def take(self, name: str) -> bool:
        return name not in self.theirs


def works(*names: str) -> list[Any]:
    import numpy as np

    found = [(name[0], int(name[1]), float(name[2])) for name in names]
    return [_sharing.Work(s, n, np.arange(10), None, t, ()) for s, n, t in found]  # type: ignore[arg-type]


def test_shares_are_whole_chunks_first_then_what_others_have_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has chunk a0 and is at its first step; it dies while it is waited for."""
    others, bar, done = Others({"a/0", "a/0/0.0"}), Bar(), set[str]()
    monkeypatch.setattr(_sharing.time, "sleep", lambda _: others.theirs.discard("a/0/0.0"))
    plan = works("a00", "a01", "a02", "a10", "a11")
    got = []
    for work in _sharing.share(plan, others, lambda work: work.name not in done, bar):  # type: ignore[arg-type]
        got.append(work.name)
        done.add(work.name)
    assert got == ["a/1/0.0", "a/1/1.0", "a/0/2.0", "a/0/1.0", "a/0/0.0"]
    assert bar.done == 0


def test_what_others_finish_is_not_done_again() -> None:
    others, bar = Others({"a/0", "a/0/0.0"}), Bar()
    plan = works("a00", "a10")
    assert [w.name for w in _sharing.share(plan, others, lambda w: w.number == 1, bar)] == ["a/1/0.0"]  # type: ignore[arg-type]
    assert bar.done == 10


@pytest.mark.parametrize("killed", [False, True])
def test_workers_share_the_chunks_and_one_that_dies_costs_nothing_else(
    tiny_run: Path,
    tmp_path: Path,
    alone: dict[str, bytes],
    killed: bool,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = _workers.Worker.__init__

    def begun(helper: Any, task: _workers.Task, unit: str) -> None:
        """Started, and waited for until it has loaded its network, so that there is something left to do."""
        start(helper, task, unit)
        limit = time.monotonic() + SECONDS
        while not helper._lines():
            assert helper._process.poll() is None and time.monotonic() < limit, _workers._read(helper._failed)
            time.sleep(0.01)
        if killed:
            helper._process.kill()

    monkeypatch.setattr(_workers.Worker, "__init__", begun)
    code, out, err = command(*flags(tiny_run, tmp_path / "store"), "--workers", 2, "--json")
    assert code == 0, err
    assert contents(tmp_path / "store") == alone
    if killed:
        assert "Worker 1 ended early (exit code -9)" in err
    else:
        assert json.loads(out)["passes"] == 2 * (1078 + 269), "something was computed twice"
        (line,) = [line for line in err.splitlines() if line.startswith("worker 1: ")]
        assert line != "worker 1: 0 forward passes"


@pytest.mark.slow
def test_a_ray_worker_killed_at_a_chunk_costs_that_chunk_only(
    tiny_run: Path, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    arguments = [*flags(tiny_run, tmp_path / "store"), "--ray", "local", "--workers", "2", "--json"]
    command = [sys.executable, "-m", "twofold.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        victim, limit = None, time.monotonic() + SECONDS
        while victim is None:
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.05)
            if any((tmp_path / "store").glob("*/features/*/c/*/0")):
                victim = next(filter(filling, psutil.Process(process.pid).children(recursive=True)), None)
        victim.kill()
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "A Ray worker died at chunk" in err
    assert contents(tmp_path / "store") == alone
    # What it had written of its chunk stays; it is dead and cannot tell how much that was.
    assert 2 * (1078 + 269 - 512) <= json.loads(out)["passes"] <= 2 * (1078 + 269)


def filling(process: psutil.Process) -> bool:
    """Whether it is a worker of Ray that is at a chunk."""
    try:
        return process.cmdline()[:1] == ["ray::Filler.fill"]
    except psutil.Error:
        return False


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--ray", "127.0.0.1:9"], "--ray 127.0.0.1:9 cannot be joined"),
        (["--ray", "locale"], "--ray locale is no address"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--workers", "two"], "--workers must be a whole number"),
    ],
)
def test_bad_input_is_one_line(tiny_run: Path, tmp_path: Path, extra: list[str], says: str, command: Command) -> None:
    code, out, err = command(*flags(tiny_run, tmp_path / "store"), *extra, "--quiet")
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1, err


def test_each_process_of_a_launcher_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert runs.own_gpu() is None
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "5")
    assert runs.own_gpu() == "cuda:1"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert runs.own_gpu() is None

"""Real processes that begin at once: forked from one that has imported what verbs need, and has done nothing else.

A fresh Python imports for many seconds before it works. What a kill leaves, and what several processes tell one
another, does not depend on that; a fresh one is started where that is what is tested.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, Self

import psutil

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["torch._dynamo", "diffusers.models.unets.unet_2d", "diffusers.training_utils", "accelerate", "sklearn.datasets",
     "sklearn.linear_model", "zarr", "matplotlib.pyplot", "torch.distributed.launcher.api", "safetensors.torch",
     "twofold.cli", "twofold.steps._trainer", "twofold.steps._tuned", "twofold.backbones._unet"]
)  # fmt: skip


class Twofold:
    """`twofold` at work in a process of its own, or in several that torch's launcher starts and watches."""

    def __init__(self, *arguments: object, count: int = 1, environment: dict[str, str] | None = None) -> None:
        self._count = count
        self._said: list[IO[bytes]] = [tempfile.NamedTemporaryFile() for _ in range(2)]  # noqa: SIM115
        self._kept: list[str] = []
        words, names = [str(a) for a in arguments], [stream.name for stream in self._said]
        self._process = FORKS.Process(target=_begin, args=(words, count, environment or {}, names))
        self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        self._kept = [self.out, self.err]
        for stream in self._said:
            stream.close()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def code(self) -> int | None:
        """The exit code; None while it works."""
        return self._process.exitcode

    @property
    def out(self) -> str:
        return self._kept[0] if self._kept else _read(self._said[0])

    @property
    def err(self) -> str:
        return self._kept[1] if self._kept else _read(self._said[1])

    def kill(self) -> None:
        """kill -9, of all at once where there are several."""
        if self.code is None:
            with suppress(psutil.NoSuchProcess):
                first = psutil.Process(self._process.pid)
                for one in [*(first.children(recursive=True) if self._count > 1 else ()), first]:
                    one.kill()
        self._process.join()

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None where it is still at work after so long."""
        self._process.join(seconds)
        return self.code


def _read(stream: IO[bytes]) -> str:
    return os.pread(stream.fileno(), 1 << 24, 0).decode(errors="replace")


def _begin(words: list[str], count: int, environment: dict[str, str], names: list[str]) -> None:
    for number, name in enumerate(names, start=1):
        with open(name, "ab") as stream:  # noqa: PTH123
            os.dup2(stream.fileno(), number)
    os.environ.update(environment)
    if count == 1:
        _command(words)
        return
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ["OMP_NUM_THREADS"] = "1"  # as the launcher itself would
    config = LaunchConfig(
        1, 1, count, run_id="tests", rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0,
        start_method="fork", monitor_interval=0.1,
    )  # fmt: skip
    elastic_launch(config, _command)(words)


def _command(words: list[str]) -> None:
    import torch

    from twofold import cli

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()))
    code: Any = cli.run(words)
    if code:
        sys.exit(code)

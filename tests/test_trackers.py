"""Trackers see what is noted; one that is missing or fails costs a line, never the training."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate import tracking

from twofold import files
from twofold.steps import _tracker

Command = Callable[..., tuple[int, str, str]]
TINY = ("pretrain", "--data", "digits", "--widths", "8,8", "--batch", 32, "--warmup", 0, "--images", 128,
        "--log-every", 32, "--probe-every", 0)  # fmt: skip


class Spy:
    """A tracker of accelerate's shape, without a network."""

    requires_logging_directory = False
    fails_at = ""

    def __init__(self, project: str, **told: Any) -> None:
        self.told = told
        self.calls: list[Any] = []
        SPIES.append(self)

    def start(self) -> None:
        self._called("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        assert values["batch"] == 32 and all(isinstance(v, (bool, int, float, str)) for v in values.values())

    def log(self, values: dict[str, Any], step: int) -> None:
        sys.stdout.write("a line that is not the command's answer\n")
        self._called("log")
        self.calls.append((step, values))

    def finish(self) -> None:
        self._called("finish")
        self.calls.append("finished")

    def _called(self, what: str) -> None:
        if what == self.fails_at:
            raise ConnectionError("no route to host\nmore lines")


SPIES: list[Spy] = []


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    SPIES.clear()
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Spy)
    monkeypatch.setattr(_tracker, "installed", lambda package: package == "wandb")


def test_a_tracker_is_told_what_is_noted(tmp_path: Path, command: Command) -> None:
    code, _, err = command(*TINY, "--quiet", "--out", tmp_path, "--tracker", "wandb")
    assert code == 0, err
    noted = files.read_lines(tmp_path / "metrics.jsonl")
    assert SPIES[0].calls == [*((r["images"], {n: r[n] for n in r if n != "images"}) for r in noted), "finished"]
    assert len(noted) == 4


def test_a_run_that_is_continued_stays_one_run_and_a_new_one_is_another(tmp_path: Path, command: Command) -> None:
    for folder, images in (("a", 64), ("a", 64), ("b/a", 64)):
        (tmp_path / folder / "finished.json").unlink(missing_ok=True)
        code, out, _ = command(*TINY, "--json", "--images", images, "--out", tmp_path / folder, "--tracker", "wandb")
        assert code == 0 and json.loads(out)["images"] == images
    first, again, other = (spy.told for spy in SPIES)
    assert first == again and first["id"] != other["id"] and len(first["id"]) == 8
    assert (first["dir"], first["name"], other["name"]) == (tmp_path / "a", "a", "a")
    assert first["settings"]["init_timeout"] < 30 and first["resume"] == "allow"


def test_a_tracker_that_is_not_installed_is_one_line(tmp_path: Path, command: Command) -> None:
    code, _, err = command(*TINY, "--quiet", "--out", tmp_path / "out", "--tracker", "trackio")
    assert code == 2 and err.count("\n") == 1 and "pip install trackio" in err, err
    assert not (tmp_path / "out").exists()


def test_a_tracker_without_a_network_is_one_line(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spy, "fails_at", "start")
    code, _, err = command(*TINY, "--quiet", "--out", tmp_path, "--tracker", "wandb")
    assert code == 2 and err.count("\n") == 1 and "no route to host. Set WANDB_MODE=offline" in err, err
    # The same run goes on without it.
    assert command(*TINY, "--quiet", "--out", tmp_path)[0] == 0


@pytest.mark.parametrize("where", ["log", "finish"])
def test_a_tracker_that_stops_working_does_not_stop_training(
    where: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spy, "fails_at", where)
    code, _, err = command(*TINY, "--out", tmp_path, "--tracker", "wandb")
    assert code == 0 and err.count("no route to host") == 1 and "Traceback" not in err, err
    assert len(files.read_lines(tmp_path / "metrics.jsonl")) == 4


def test_accelerate_knows_every_tracker() -> None:
    assert set(_tracker.NAMES[1:]) <= set(tracking.LOGGER_TYPE_TO_CLASS)

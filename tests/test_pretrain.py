"""Training: what the settings mean, what is kept when it goes wrong, and the same curve from several processes."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import processes
from twofold import files
from twofold.steps import _schedule
from twofold.steps._trainer import Trainer

Command = Callable[..., tuple[int, str, str]]
SECONDS = 120.0  # the longest wait for a process to begin or to end
TINY = ("pretrain", "--data", "digits", "--widths", "8,8", "--batch", 32, "--warmup", 0, "--ema", 0, "--quiet")


def train(command: Command, out: Path, *arguments: object) -> list[dict[str, float]]:
    """Train to the end; what was noted, without the seconds it took."""
    code, _, err = command(*TINY, "--out", out, *arguments)
    assert code == 0, err
    return [{n: v for n, v in r.items() if n != "seconds"} for r in files.read_lines(out / "metrics.jsonl")]


def test_no_clipping_is_the_same_as_clipping_at_a_norm_that_is_never_reached(tmp_path: Path, command: Command) -> None:
    often = ("--images", 192, "--log-every", 32, "--probe-every", 0)
    found = {clip: train(command, tmp_path / str(clip), *often, "--clip", clip) for clip in (0, 1e9, 1e-9)}
    assert found[0] == found[1e9] != found[1e-9]


def diverged(answer: tuple[int, str, str], *says: str) -> None:
    code, out, err = answer
    assert (code, out) == (2, "") and err.count("\n") == 1 and "smaller --lr" in err, err
    for words in says:
        assert words in err


def leaves(value: object) -> list[torch.Tensor]:
    """The tensors of a checkpoint."""
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    if isinstance(value, (list, tuple)):
        return [leaf for part in value for leaf in leaves(part)]
    return [value] if isinstance(value, torch.Tensor) else []


# Steps of 1e30 leave finite weights, with which every loss overflows; infinite steps leave no finite weights.
@pytest.mark.parametrize("rate", [1e30, float("inf")])
def test_training_that_diverges_keeps_a_checkpoint_that_is_good(
    rate: float, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, often = tmp_path / "out", ("--images", 192, "--log-every", 32, "--save-every", 32, "--probe-every", 0)
    with monkeypatch.context() as patch:
        patch.setattr(_schedule, "rate", lambda seen, _warmup, _total: 1.0 if seen < 96 else rate)
        diverged(command(*TINY, "--out", out, *often), "up to image 128", "the checkpoint before it is kept")
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    assert state["seen"] == 96 and all(tensor.isfinite().all() for tensor in leaves(state))
    assert not (out / "finished.json").exists() and not (out / "model_index.json").exists()
    code, _, err = command("blocks", out)
    assert code == 2 and "not a finished run of `twofold pretrain`" in err
    # What is kept can be gone on from: with sane steps the same run comes to its end.
    noted = train(command, out, *often)
    assert [record["images"] for record in noted] == [32, 64, 96, 128, 160, 192]
    assert (out / "model_index.json").exists()


@pytest.mark.parametrize("rate", ["1e30", "inf"])
def test_training_whose_last_update_diverges_is_not_finished(rate: str, tmp_path: Path, command: Command) -> None:
    answer = command(*TINY, "--out", tmp_path / "out", "--images", 32, "--lr", rate, "--probe-every", 0)
    diverged(answer, "The loss became", "there was no checkpoint yet")
    for name in ("finished.json", "model_index.json", "checkpoint.pt"):
        assert not (tmp_path / "out" / name).exists()


@pytest.mark.parametrize("rate", ["1e10", "1e30", "inf"])
def test_training_that_diverges_says_so_before_its_probe_stumbles(rate: str, tmp_path: Path, command: Command) -> None:
    seldom = ("--images", 640, "--log-every", 640, "--probe-every", 64, "--lr", rate)
    diverged(command(*TINY, "--out", tmp_path / "out", *seldom), "The loss became", "there was no checkpoint yet")


def test_a_checkpoint_with_broken_weights_becomes_no_pipeline(tmp_path: Path, command: Command) -> None:
    out, short = tmp_path / "out", ("--images", 32, "--probe-every", 0)
    train(command, out, *short)
    for name in ("finished.json", "model_index.json"):
        (out / name).unlink()
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    state["ema"]["shadow_params"][0][0] = torch.nan
    torch.save(state, out / "checkpoint.pt")
    diverged(command(*TINY, "--out", out, *short), "The loss became")
    assert not (out / "model_index.json").exists() and not (out / "finished.json").exists()


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Image counts at which checkpoints are written."""
    counts: list[int] = []
    save = Trainer.save
    monkeypatch.setattr(Trainer, "save", lambda self, path: (counts.append(self.seen), save(self, path)))
    return counts


def test_checkpoints_do_not_wait_for_a_line_of_the_log(tmp_path: Path, command: Command, saved: list[int]) -> None:
    seldom = ("--images", 320, "--log-every", 320, "--probe-every", 0, "--save-every", 64)
    train(command, tmp_path / "out", *seldom)
    assert saved == [64, 128, 192, 256, 320]


def test_a_run_stopped_between_two_lines_of_the_log_notes_the_same(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = ("--images", 320, "--log-every", 128, "--probe-every", 0)
    whole = train(command, tmp_path / "whole", *often)
    save = Trainer.save

    def interrupt(self: Trainer, path: Path) -> None:
        save(self, path)
        if self.seen in (96, 192):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", interrupt)
        for _ in range(2):
            assert command(*TINY, "--out", tmp_path / "stopped", *often, "--save-every", 96)[0] == 130
    assert train(command, tmp_path / "stopped", *often) == whole
    assert [record["images"] for record in whole] == [128, 256, 320]


def torchrun(out: Path, *arguments: object) -> tuple[int | None, str, str]:
    """Train in two processes, as a user starts them: exit code, stdout, stderr."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "twofold.cli", *map(str, (*TINY, "--out", out, "--device", "cpu", *arguments))]
    told = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS, env=told)
    return done.returncode, done.stdout, done.stderr


def together(out: Path, *arguments: object) -> tuple[int | None, str, str]:
    """The same by the same launcher, but that nobody imports anything anew."""
    with processes.Twofold(*TINY, "--out", out, "--device", "cpu", *arguments, count=2) as process:
        return process.wait(SECONDS), process.out, process.err


MANY = ("--accumulate", 2, "--augment", "edm", "--labels", "--track", 93, "--track-samples", 16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "options", "apart"),
    [(torchrun, (), 1e-4), (together, MANY, 1e-4), (together, ("--precision", "bf16"), 4e-3)],
    ids=["plain", "many", "bf16"],
)
def test_two_processes_train_as_one_does(
    start: Command, options: tuple[object, ...], apart: float, tmp_path: Path, command: Command
) -> None:
    # Batches of 31 are shared unevenly, and the last image leaves one process without any.
    often = ("--images", 187, "--batch", 31, "--log-every", 31, "--probe-every", 93, "--save-every", 93, *options)
    alone = train(command, tmp_path / "alone", *often, "--device", "cpu")
    code, out, err = start(tmp_path / "both", *often, "--json")
    assert code == 0, err
    assert out.count("\n") == 1 and "Traceback" not in err
    noted = files.read_lines(tmp_path / "both" / "metrics.jsonl")
    assert [record["images"] for record in noted] == [record["images"] for record in alone]
    for name in ("loss", "lr", "fd"):
        curves = [[record[name] for record in records if name in record] for records in (noted, alone)]
        np.testing.assert_allclose(*curves, rtol=apart if name != "fd" else 1e-2)
    weights = [
        load_file(tmp_path / which / "unet" / "diffusion_pytorch_model.safetensors") for which in ("both", "alone")
    ]
    for name, values in weights[1].items():
        torch.testing.assert_close(weights[0][name], values, rtol=100 * apart, atol=apart)
    # Once more, by one process alone: it is done.
    before = (tmp_path / "both" / "finished.json").read_bytes()
    assert command(*TINY, "--out", tmp_path / "both", *often)[0] == 0
    assert (tmp_path / "both" / "finished.json").read_bytes() == before


@pytest.mark.slow
def test_a_folder_that_is_busy_stops_both_processes(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, out, err = together(tmp_path, "--images", 64)
    assert code and out == "" and err.count("twofold: Another process is writing") == 1
    assert not (tmp_path / "config.toml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_left_alone_ends_and_says_so(victim: int, tmp_path: Path) -> None:
    """Without a launcher that would stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    address["OMP_NUM_THREADS"] = "1"
    often = ("--images", 1_000_000, "--log-every", 32, "--save-every", 320, "--probe-every", 0, "--device", "cpu")
    with ExitStack() as stack:
        both = [
            stack.enter_context(
                processes.Twofold(
                    *TINY, "--out", tmp_path / "out", *often, environment={**address, "RANK": rank, "LOCAL_RANK": rank}
                )
            )
            for rank in ("0", "1")
        ]
        limit = time.monotonic() + SECONDS
        while not (tmp_path / "out" / "checkpoint.pt").exists():
            assert time.monotonic() < limit and all(process.code is None for process in both), both[0].err
            time.sleep(0.05)
        both[victim].kill()
        code, err = both[1 - victim].wait(SECONDS), both[1 - victim].err
        assert code == 2 and "Another of the 2 processes" in err and "Traceback" not in err, err


def test_nothing_is_drawn_for_no_image() -> None:
    drawn = _schedule.draw(0, range(5, 5), 10, (1, 4, 4), 1000)
    assert len(drawn.rows) == len(drawn.steps) == 0 and drawn.noise.shape == (0, 1, 4, 4)


def test_what_is_drawn_for_an_image_does_not_depend_on_its_batch() -> None:
    whole, part = (_schedule.draw(3, numbers, 10, (1, 4, 4), 1000) for numbers in (range(5, 25), range(8, 12)))
    for name in ("rows", "steps", "noise"):
        np.testing.assert_array_equal(getattr(whole, name)[3:7], getattr(part, name))

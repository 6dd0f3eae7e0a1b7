"""Training images: from memory, or read while the network computes: the same images, the same training, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from twofold.backbones import base
from twofold.backbones.base import DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.steps import _supply
from twofold.steps._supply import Supply

Command = Callable[..., tuple[int, str, str]]
TINY = ("--data", "digits", "--batch", 32, "--warmup", 0, "--images", 160, "--quiet")
NONE = 1e-6  # gigabytes: room for no image


def same_weights(*runs: Path) -> bool:
    kept, read = (load_file(run / "unet" / "diffusion_pytorch_model.safetensors") for run in runs)
    return kept.keys() == read.keys() and all(torch.equal(kept[name], read[name]) for name in kept)


@pytest.fixture
def backbone(tiny_run: Path) -> DiffusionBackbone:
    found = base.load(f"run:{tiny_run}", device="cpu", precision="fp32")
    assert isinstance(found, DiffusionBackbone)
    return found


def test_both_give_the_same_images_in_any_order(backbone: DiffusionBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_supply, "PIECE", 100)
    rows = datasets.load("digits").build("train")
    kept, read = Supply(backbone, rows), Supply(backbone, rows, NONE)
    wanted = backbone.preprocess(rows.read(range(len(rows))))
    assert len(kept) == len(read) == len(rows) and kept.shape == read.shape == wanted.shape[1:]
    for positions in (np.arange(len(rows)), np.array([7, 3, 3, 900]), np.array([], dtype=np.int64)):
        read.expect(lambda p=positions: p)  # type: ignore[misc]
        assert torch.equal(kept.take(positions), wanted[positions])
        assert len(positions) == 0 or torch.equal(read.take(positions), wanted[positions])


def test_what_was_expected_is_read_once(backbone: DiffusionBackbone) -> None:
    """A batch is taken in parts while the next one is read; nothing is read twice."""
    seen: list[int] = []
    rows = datasets.load("digits").build("train")
    inner, wanted = rows.read, backbone.preprocess(rows.read(range(40)))
    object.__setattr__(rows, "read", lambda positions: (seen.extend(positions), inner(positions))[1])
    supply = Supply(backbone, rows, NONE)
    batches = [np.arange(k, k + 8) for k in range(0, 40, 8)]
    supply.expect(lambda: batches[0])
    for batch, coming in zip(batches, [*batches[1:], np.array([], dtype=np.int64)], strict=True):
        supply.expect(lambda p=coming: p)  # type: ignore[misc]
        for part in np.split(batch, 2):
            assert torch.equal(supply.take(part), wanted[part])
    assert sorted(seen) == list(range(40))


@pytest.mark.parametrize("more", [(), ("--augment", "edm", "--accumulate", 3)], ids=["plain", "augmented, in parts"])
def test_images_that_are_read_while_training_train_the_same(
    more: tuple[object, ...], tmp_path: Path, command: Command
) -> None:
    for name, memory in (("kept", 1), ("read", NONE)):
        given = ("pretrain", *TINY, "--widths", "8,8", "--probe-every", 0, *more, "--memory", memory)
        code, _, err = command(*given, "--out", tmp_path / name)
        assert code == 0, err
        told = (tmp_path / name / "log.txt").read_text()
        assert ("read while training" in told) == (name == "read")
    assert same_weights(tmp_path / "kept", tmp_path / "read")


def test_rivals_too(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    for name, memory in (("kept", 1), ("read", NONE)):
        code, _, err = command(
            "rival", "masked", *TINY, "--like", f"{tiny_run}", "--memory", memory, "--out", tmp_path / name
        )
        assert code == 0, err
    assert same_weights(tmp_path / "kept", tmp_path / "read")

"""Augmentation, several averages, and ways to save memory and time: what each may change, and what it must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline
from safetensors.torch import load_file

from twofold import files
from twofold.backbones import base
from twofold.steps import _augment
from twofold.steps._trainer import Trainer

Command = Callable[..., tuple[int, str, str]]
TINY = ("pretrain", "--data", "digits", "--widths", "8,8", "--batch", 32, "--warmup", 0, "--quiet")
SHORT = ("--images", 160, "--log-every", 32, "--probe-every", 0)


def trained(command: Command, out: Path, *arguments: object) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses and the saved weights."""
    code, _, err = command(*TINY, *SHORT, "--out", out, *arguments)
    assert code == 0, err
    losses = [record["loss"] for record in files.read_lines(out / "metrics.jsonl")]
    return losses, weights(out)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def one(**given: float | tuple[float, float]) -> np.ndarray:
    vector = np.zeros((64, _augment.NUMBERS), dtype=np.float32)
    for name, value in given.items():
        vector[:, getattr(_augment, name)] = value
    return vector


def test_what_is_changed_belongs_to_the_image() -> None:
    whole, part = (_augment.changes("edm", 3, numbers) for numbers in (range(4000), range(8, 12)))
    np.testing.assert_array_equal(whole[8:12], part)
    happens = (whole[:, [0, 1, 2, 4, 6, 8]] != 0).mean(0)
    np.testing.assert_allclose(happens, [0.5, *[_augment.CHANCE] * 5], atol=0.03)
    assert (_augment.changes("flip", 3, range(50))[:, 1:] == 0).all()


def test_unchanged_images_and_flips_are_exact(images: torch.Tensor) -> None:
    assert torch.equal(_augment.changed(images, one()), images)
    assert torch.equal(_augment.changed(images, one(FLIPS=(1, 0))), images.flip(-1))
    assert torch.equal(_augment.changed(images, one(FLIPS=(0, 1))), images.flip(-2))


def test_changes_are_what_they_are_called(images: torch.Tensor) -> None:
    quarter = _augment.changed(images, one(TURN=(-1, 1)))
    torch.testing.assert_close(quarter, images.rot90(-1, (-2, -1)), rtol=0, atol=1e-4)
    moved = _augment.changed(images, one(MOVE=(2, 0)))  # two eighths of eight pixels to the right
    torch.testing.assert_close(moved[..., 2:], images[..., :-2], rtol=0, atol=1e-4)
    # Twice as large: a place in the result was half as far from the middle; squeezing is stretching the other axis.
    np.testing.assert_allclose(_augment.backwards(one(ZOOM=5))[0], [[0.5, 0, 0], [0, 0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(_augment.backwards(one(STRETCH=(5, 0)))[0], [[0.5, 0, 0], [0, 2, 0]], atol=1e-6)
    np.testing.assert_allclose(_augment.backwards(one(STRETCH=(-5, 0)))[0], [[2, 0, 0], [0, 0.5, 0]], atol=1e-6)


@pytest.mark.parametrize("labels", [(), ("--labels",)])
def test_a_network_told_of_changes_is_saved_as_any_other(
    labels: tuple[str, ...], tmp_path: Path, command: Command
) -> None:
    plain = trained(command, tmp_path / "plain", *labels)
    told = trained(command, tmp_path / "told", "--augment", "edm", *labels)
    assert plain[0] != told[0] and plain[1].keys() == told[1].keys()
    found = [DDPMPipeline.from_pretrained(tmp_path / name).unet.config for name in ("told", "plain")]
    assert len({str({n: v for n, v in config.items() if n != "_name_or_path"}) for config in found}) == 1
    # The layer that tells of changes learned something: it is in the checkpoint alone.
    state = torch.load(tmp_path / "told" / "checkpoint.pt", weights_only=True)["unet"]
    assert (state["class_embedding.changes.weight"] != 0).any()


def test_an_augmented_run_that_is_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ("--augment", "edm", "--labels", "--ema", "300,100", "--save-every", 64, "--accumulate", 2)
    whole = trained(command, tmp_path / "whole", *how)
    save = Trainer.save

    def interrupt(self: Trainer, path: Path) -> None:
        save(self, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", interrupt)
        assert command(*TINY, *SHORT, "--out", tmp_path / "stopped", *how)[0] == 130
    losses, ended = trained(command, tmp_path / "stopped", *how)
    assert losses == whole[0] and same(ended, whole[1])
    assert same(weights(tmp_path / "stopped" / "ema-100"), weights(tmp_path / "whole" / "ema-100"))


def test_each_average_is_a_model(tmp_path: Path, command: Command) -> None:
    first = trained(command, tmp_path / "both", "--ema", "300,0", "--labels")[1]
    assert same(first, trained(command, tmp_path / "one", "--ema", 300, "--labels")[1])
    last = weights(tmp_path / "both" / "ema-0")
    state = torch.load(tmp_path / "both" / "checkpoint.pt", weights_only=True)["unet"]
    # Without a half-life it is the network itself, whose table has one row more in training.
    assert all(torch.equal(last[n], state[n][: len(last[n])]) for n in last) and not same(first, last)
    loaded = base.load(f"run:{tmp_path / 'both' / 'ema-0'}", device="cpu")
    assert loaded.class_names == tuple("0123456789")  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", [("--accumulate", 5), ("--accumulate", 100), ("--checkpointing",)])
def test_saving_memory_trains_the_same(how: tuple[object, ...], tmp_path: Path, command: Command) -> None:
    plain = trained(command, tmp_path / "plain")
    other = trained(command, tmp_path / "other", *how)
    np.testing.assert_allclose(other[0], plain[0], rtol=1e-5)
    for name, values in plain[1].items():
        torch.testing.assert_close(other[1][name], values, rtol=1e-2, atol=1e-4)
    # A run may go on with other means: it is the same run.
    assert command(*TINY, *SHORT, "--out", tmp_path / "plain", *how)[0] == 0


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "--accumulate 2 or --checkpointing"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "--accumulate 2"),
        (MemoryError(), "--accumulate 2"),
        (torch._dynamo.exc.InternalTorchDynamoError("no compiler\nmore"), "--compile does not work here: no compiler"),
    ],
)
def test_what_settings_can_mend_is_one_line_and_the_checkpoint_stays(
    error: Exception, says: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    backward = Trainer._backward

    def fails(self: Trainer, part: range, count: int, *, last: bool) -> torch.Tensor:
        if self.seen == 96:
            raise error
        return backward(self, part, count, last=last)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_backward", fails)
        code, _, err = command(*TINY, *SHORT, "--out", out, "--save-every", 32)
    assert code == 2 and err.count("\n") == 1 and says in err and "goes on from the last checkpoint" in err, err
    assert torch.load(out / "checkpoint.pt", weights_only=True)["seen"] == 96
    assert trained(command, out, "--accumulate", 2)[0]

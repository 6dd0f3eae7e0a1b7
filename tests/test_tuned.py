"""`twofold predict` with what `twofold finetune` tuned: its weights, its labels, its numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twofold import results
from twofold.datasets import base as datasets
from twofold.steps import _images, _through, _trials, _tuned

Command = Callable[..., tuple[int, str, str]]
COUNT = 40
HEADS = {
    "frozen": ("--head", "cnn?width=8&layers=1"),
    "full": ("--head", "linear", "--pool", "2"),
    "difffeed": ("--head", "attention?tokenizer=p2&width=16"),
}


@pytest.fixture(scope="module", params=_through.MODES)
def tuned(request: pytest.FixtureRequest, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of each mode."""
    from twofold import cli

    folder = tmp_path_factory.mktemp("tuned") / "run"
    arguments = ["finetune", "--model", str(tiny_run), "--data", "digits", "--out", str(folder), "--mode"]
    arguments += [request.param, *HEADS[request.param], "--block", "up.0.0", "--t", "30", "--epochs", "2"]
    arguments += ["--batch", "32", "--rates", "0.01", "--augment", "crop", "--device", "cpu", "--seed", "3"]
    assert cli.run([*arguments, "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The first test images of digits as files."""
    folder, rows = tmp_path_factory.mktemp("pictures"), datasets.load("digits").build("test")
    paths = [folder / f"{k:02}.png" for k in range(COUNT)]
    for path, image in zip(paths, rows.read(range(COUNT)), strict=True):
        Image.fromarray(image[0].numpy()).save(path)
    return paths


def predictions(run: Path) -> _trials.Predictions:
    (path,) = (run / "predictions").glob("*.npz")
    return _trials.load(path)


def test_its_answers_on_test_are_those_of_the_run_bit_for_bit(tuned: Path) -> None:
    kept, test = predictions(tuned), datasets.load("digits").build("test")
    chances = _tuned.load(tuned, device="cpu").of_rows(test)
    assert (kept.index == test.index).all() and (kept.labels == test.labels).all()
    assert (chances.argmax(1) == kept.predicted[0]).all()
    assert (chances.max(1).astype(np.float32) == kept.confidence[0]).all()
    (score,) = results.read(tuned)
    assert score.value == (chances.argmax(1) == test.labels).mean() > 0.3


def test_files_get_the_same_numbers_where_their_noise_is_the_same(
    tuned: Path, pictures: list[Path], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file's noise is of its pixels; with the numbers of the data set in their place it answers as the run did."""
    rows, kept = datasets.load("digits").build("test"), predictions(tuned)
    numbers = {_images.own_number(image): int(i) for image, i in zip(rows.read(range(COUNT)), rows.index, strict=False)}
    own = _images.own_number
    free = asked(command, "--classifier", tuned, *pictures)
    monkeypatch.setattr(_images, "own_number", lambda picture: numbers[own(picture)])
    told = asked(command, "--classifier", tuned, *pictures)
    assert [one["label"] for one in told] == [str(k) for k in kept.predicted[0, :COUNT]]
    found = [one["probabilities"][one["label"]] for one in told]
    np.testing.assert_allclose(found, kept.confidence[0, :COUNT], atol=2e-6)
    # With noise of their own they are answered otherwise, but as well.
    assert [one["probabilities"] for one in free] != [one["probabilities"] for one in told]
    right = [one["label"] == str(k) for one, k in zip(free, kept.labels, strict=False)]
    assert np.mean(right) > 0.3


def test_the_order_and_the_batch_of_files_change_nothing(tuned: Path, pictures: list[Path], command: Command) -> None:
    first = asked(command, "--classifier", tuned, *pictures, "--top", 10)
    other = asked(command, "--classifier", tuned, *reversed(pictures), "--top", 10, "--batch", 7)
    for one, same in zip(first, reversed(other), strict=True):
        assert one["image"] == same["image"] and len(one["probabilities"]) == 10
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        for label, chance in one["probabilities"].items():
            assert chance == pytest.approx(same["probabilities"][label], abs=1e-5)


def asked(command: Command, *arguments: object) -> list[dict[str, Any]]:
    code, out, err = command("predict", *arguments, "--device", "cpu", "--json", "--quiet")
    assert code == 0, err
    images: list[dict[str, Any]] = json.loads(out)["images"]
    return images


def edited(run: Path, **changes: object) -> None:
    path = run / "tuned.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "unfinished": (lambda run: (run / "finished.json").unlink(), "is not finished. Run its command again"),
    "no description": (lambda run: (run / "tuned.json").unlink(), "has no tuned.json"),
    "no weights": (lambda run: (run / "best.safetensors").unlink(), "best.safetensors is damaged"),
    "half the weights": (
        lambda run: (run / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes()[:2000]),
        "best.safetensors is damaged",
    ),
    "fewer labels": (lambda run: edited(run, labels=["0", "1"]), "best.safetensors is damaged or of another"),
    "another mode": (lambda run: edited(run, mode="fast"), "tuned.json is damaged: it has no mode 'fast'"),
    "another head": (lambda run: edited(run, head="ridge"), "ridge is not trained by gradients"),
    "no such block": (lambda run: edited(run, cells=["b70_t30_p2"]), "has no block 70"),
    "no cells": (lambda run: edited(run, cells=[]), "cells"),
    "another network": (lambda run: edited(run, fingerprint="0"), "is not the network that"),
    "no network": (lambda run: edited(run, model="run:nowhere"), "nowhere"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_spoilt_is_one_line(
    what: str, tuned: Path, pictures: list[Path], tmp_path: Path, command: Command
) -> None:
    run, (spoil, says) = tmp_path / "run", SPOILT[what]
    shutil.copytree(tuned, run)
    spoil(run)
    code, out, err = command("predict", "--classifier", run, pictures[0], "--device", "cpu", "--quiet")
    assert (code, out) == (2, "") and err.count("\n") == 1 and says in err, err

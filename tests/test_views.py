"""Extra views of training images: stored beside them, with noise of their own, for heads to learn from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_models
import twofold
from test_damage import photographs
from twofold.datasets import base
from twofold.heads import base as heads
from twofold.records import Cell, Tap
from twofold.steps import _trials, _views
from twofold.store import Store, Table

Command = Callable[..., tuple[int, str, str]]
PIXELS = Cell(Tap(1, None), 8)


def extract(command: Command, out: Path, *more: object) -> tuple[Store, dict[str, Any]]:
    arguments = ("extract", "--data", "digits", "--out", out, "--json", "--quiet", *more)
    code, said, err = command(*arguments)
    assert code == 0, err
    return twofold.load_store(out), json.loads(said)


def test_a_flip_is_the_mirrored_image_with_its_index(tmp_path: Path, command: Command) -> None:
    store, facts = extract(command, tmp_path, "--model", "pixels:8", "--pool", 8, "--views", "flip")
    plain, flipped = store.read("train", PIXELS), store.read("train.flip", PIXELS)
    np.testing.assert_array_equal(flipped.x.reshape(-1, 3, 8, 8), plain.x.reshape(-1, 3, 8, 8)[..., ::-1])
    assert plain.index.tolist() == flipped.index.tolist() and plain.y.tolist() == flipped.y.tolist()
    assert facts["rows"] == {"train": 1078, "val": 269, "test": 450, "train.flip": 1078}


def test_views_are_added_to_a_store_that_is_there(tmp_path: Path, command: Command) -> None:
    arguments = ("--model", "pixels:8", "--pool", 8, "--split", "train")
    extract(command, tmp_path, *arguments)
    store, facts = extract(command, tmp_path, *arguments, "--views", "flip,crops:2")
    assert facts["passes"] == 3 * 1078
    assert store.splits() == ["train", "train.crop1", "train.crop2", "train.flip"]
    one, two = (store.read(f"train.crop{k}", PIXELS).x for k in (1, 2))
    assert (one != two).any(1).mean() > 0.9
    _, again = extract(command, tmp_path, *arguments, "--views", "crops:2")
    assert again["passes"] == 0


def test_the_noise_of_a_view_is_its_own(tmp_path: Path, command: Command) -> None:
    """Of flat images a flip is the image itself, so only the noise can differ."""
    model = f"diffusers:{tiny_models.pipeline('DDPMPipeline', tmp_path / 'model')}"
    data = tmp_path / "flat"
    for label in "ab":
        tiny = np.full((8, 8, 3), 90 + 40 * (label == "a"), dtype=np.uint8)
        (data / label).mkdir(parents=True)
        for k in range(10):
            Image.fromarray(tiny).save(data / label / f"{k}.png")
    arguments = ("--model", model, "--split", "train", "--t", 20, "--blocks", "mid", "--pool", 1, "--views", "flip")
    code, _, err = command("extract", "--data", f"folder:{data}", "--out", tmp_path / "s", "--quiet", *arguments)
    assert code == 0, err
    store = twofold.load_store(tmp_path / "s")
    plain, flipped = (store.read(split, store.cells("train")[0]).x for split in ("train", "train.flip"))
    assert (np.abs(plain - flipped).max(1) > 1e-3).all()


def test_crops_belong_to_the_image(tmp_path: Path) -> None:
    dataset = base.load(f"folder:{photographs(tmp_path)}")
    rows, other = (_views.rows(dataset, "train.crop1", seed) for seed in (0, 1))
    together = list(rows.read(range(9)))
    assert all(map(torch.equal, together, (rows.read([k])[0] for k in range(9))))
    assert not all(map(torch.equal, together, other.read(range(9))))
    for crop in together:
        assert crop.shape[1] == crop.shape[2] and 19 <= crop.shape[1] <= 24
    whole = dataset.build("train")
    for crop, image in zip(together, whole.read(range(9)), strict=True):
        side = crop.shape[1]
        windows = image.unfold(1, side, 1).unfold(2, side, 1)
        places = windows.permute(1, 2, 0, 3, 4)
        assert any((places == seen).flatten(2).all(2).any() for seen in (crop, crop.flip(-1)))


def test_a_head_learns_from_all_views_of_the_images_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, index = np.repeat([0, 1], 10), np.arange(20)
    seen: list[np.ndarray[Any, Any]] = []

    class Spy:
        def fit(self, x, y, *, val=None):
            seen.append(x)
            return self

        choice = None

        def scores(self, x):
            return np.zeros((len(x), 2))

    monkeypatch.setattr(heads, "load", lambda name: Spy())
    table = Table(np.arange(20, dtype=np.float32)[:, None], labels, index)
    view = Table(table.x + 100, labels, index)
    _trials._trial({"train": table, "val": table, "test": table, "train.flip": view}, "spy", 3, 0)
    (x,) = seen
    assert len(x) == 12 and set(x[6:, 0] - 100) == set(x[:6, 0])


def test_probe_says_its_views(tmp_path: Path, command: Command) -> None:
    arguments = ("probe", "--model", "pixels:8", "--data", "digits", "--out", tmp_path / "run", "--block", 1)
    code, out, err = command(*arguments, "--pool", 8, "--head", "ridge", "--views", "crops:1", "--quiet", "--json")
    assert code == 0, err
    (score,) = json.loads(out)["scores"]
    assert score["about"]["views"] == ["train.crop1"] and score["value"] > 0.9


@pytest.mark.parametrize("views", ["flop", "crops", "crops:0", "crops:100", "flip,crops:x"])
def test_other_views_are_one_line(tmp_path: Path, command: Command, views: str) -> None:
    code, _, err = command("extract", "--model", "pixels", "--data", "digits", "--out", tmp_path, "--views", views)
    assert code == 2 and "means nothing. Give flip, crops:K" in err and len(err.strip().splitlines()) == 1

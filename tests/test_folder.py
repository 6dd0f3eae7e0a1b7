"""Folders of images as people have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tiny_sources import bomb
from twofold.datasets import _decode, base
from twofold.errors import BadData

RED = np.full((6, 8, 3), (200, 30, 10), dtype=np.uint8)


def fill(folder: Path, names: list[str], value: int = 0) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(path)


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        (("train", "val", "test"), (20, 8, 6)),
        (("train", "test"), (16, 4, 6)),  # val is carved from train: 15 of 75 parts
        (("train", "val"), (14, 8, 6)),  # test is carved from train: 25 of 85 parts
        (("train",), (12, 4, 4)),
    ],
)
def test_given_splits_are_kept_and_missing_ones_carved(
    tmp_path: Path, given: tuple[str, ...], counts: tuple[int, ...]
) -> None:
    for split, count in zip(("train", "val", "test"), (10, 4, 3), strict=True):
        if split in given:
            fill(tmp_path, [f"{split}/{label}/{k}.png" for label in "ab" for k in range(count)])
    dataset = base.load(f"folder:{tmp_path}")
    rows = [dataset.build(split) for split in base.SPLITS]
    assert tuple(len(r) for r in rows) == counts
    assert all(set(r.labels.tolist()) == {0, 1} for r in rows)
    assert len({int(i) for r in rows for i in r.index}) == sum(len(r) for r in rows)


def test_classes_are_those_of_all_splits(tmp_path: Path) -> None:
    fill(tmp_path, [f"train/{label}/{k}.png" for label in "bc" for k in range(4)])
    fill(tmp_path, ["test/a/0.png", "test/c/0.png"])
    dataset = base.load(f"folder:{tmp_path}")
    assert dataset.classes == ("a", "b", "c")
    assert dataset.build("test").labels.tolist() == [0, 2]


def test_a_folder_without_classes_is_one_class(tmp_path: Path) -> None:
    fill(tmp_path, [f"{k}.png" for k in range(20)])
    dataset = base.load(f"folder:{tmp_path}")
    assert dataset.classes == ("images",)
    assert [len(dataset.build(split)) for split in base.SPLITS] == [12, 3, 5]
    assert dataset.image_size == 8 and dataset.channels == 3


def test_the_fingerprint_sees_what_features_depend_on(tmp_path: Path) -> None:
    names = [f"{label}/{k}.png" for label in "ab" for k in range(4)]
    fill(tmp_path / "x", names)
    fill(tmp_path / "y", names)
    here, there = (base.load(f"folder:{tmp_path / name}") for name in "xy")
    assert here.fingerprint == there.fingerprint
    fill(tmp_path / "y", ["a/9.png"])
    assert base.load(f"folder:{tmp_path / 'y'}").fingerprint != here.fingerprint


def saved(path: Path, image: Image.Image, **more: Any) -> torch.Tensor:
    image.save(path, **more)
    return _decode.decode(path)


def test_every_way_of_storing_is_rgb_in_bytes(tmp_path: Path) -> None:
    colour = Image.fromarray(RED)
    wanted = torch.from_numpy(RED).permute(2, 0, 1)
    assert torch.equal(saved(tmp_path / "rgb.png", colour), wanted)
    assert torch.equal(saved(tmp_path / "palette.png", colour.quantize(4)), wanted)
    grey = saved(tmp_path / "grey.png", Image.fromarray(RED[..., 0]))
    assert grey.shape == (3, 6, 8) and (grey == 200).all()
    deep = saved(tmp_path / "deep.png", Image.fromarray(np.full((6, 8), 200 * 257, dtype=np.uint16)))
    assert (deep == 200).all()
    clear = np.dstack([RED, np.full((6, 8), 0, dtype=np.uint8)])
    assert (saved(tmp_path / "clear.png", Image.fromarray(clear, "RGBA")) == 255).all()
    ink = saved(tmp_path / "cmyk.jpg", colour.convert("CMYK"), quality=95)
    assert (ink.float() - wanted.float()).abs().max() < 12
    turned = Image.fromarray(RED)
    exif = turned.getexif()
    exif[0x0112] = 6  # taken with the camera on its side
    assert saved(tmp_path / "turned.jpg", turned, exif=exif).shape == (3, 8, 6)


def test_what_does_not_decode_is_named(tmp_path: Path, command: Any) -> None:
    fill(tmp_path / "d", [f"{label}/{k}.png" for label in "ab" for k in range(20)])
    (tmp_path / "d" / "a" / "7.png").write_text("not a picture")
    arguments = ("extract", "--model", "pixels:8", "--data", f"folder:{tmp_path / 'd'}", "--out", tmp_path / "s")
    code, _, err = command(*arguments, "--pool", 8, "--quiet")
    assert code == 2 and "7.png does not decode" in err and len(err.strip().splitlines()) == 1


def test_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    for side in (7_072, 10_000, 60_000):  # Pillow warns of the second and stops at the third
        path.write_bytes(bomb(side))
        with pytest.raises(BadData, match=r"does not decode \(.*a bomb: more than 50 million"):
            _decode.decode(path)


def test_folders_without_images_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, says in (("empty", "holds no images"), ("absent", "does not exist"), ("", "(empty)")):
        with pytest.raises(BadData, match=says.replace("(", r"\(").replace(")", r"\)")):
            base.load(f"folder:{tmp_path / name}" if name else "folder:")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadData, match="is not a folder"):
        base.load(f"folder:{tmp_path / 'file'}")


@pytest.mark.shared
def test_squeezenet_classifies_flowers(shared: Path, tmp_path: Path, command: Any) -> None:
    """The real encoder at hand: 95 % (+-1) with globally averaged last features."""
    weights = shared / "data" / "weights" / "squeezenet1_1_features.safetensors"
    model, data = f"torchvision:squeezenet1_1@{weights}", f"folder:{shared / 'data' / 'flowers12'}"
    arguments = ("probe", "--model", model, "--data", data, "--out", tmp_path / "out", "--block", 12)
    code, out, err = command(*arguments, "--head", "logistic", "--controls", "none", "--quiet", "--json")
    assert code == 0, err
    import json

    (score,) = json.loads(out)["scores"]
    assert score["value"] == pytest.approx(0.95, abs=0.01)

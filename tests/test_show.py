"""`show`: colours mean the same everywhere and do not change, neighbours are near, mistakes are one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_models
from twofold import cli
from twofold.backbones import base as backbones
from twofold.datasets import base as datasets
from twofold.errors import BadSetting
from twofold.plots import insides
from twofold.steps import _seen

Command = Callable[..., tuple[int, str, str]]


def refused(answer: tuple[int, str, str], *says: str) -> None:
    code, out, err = answer
    assert code == 2 and out == "" and err.count("\n") == 1 and "Traceback" not in err, err
    for words in says:
        assert words in err


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four digits as files."""
    rows = datasets.load("digits").build("val")
    folder = tmp_path_factory.mktemp("photos")
    for k in range(4):
        Image.fromarray(rows.read([k])[0].permute(1, 2, 0).numpy()).save(folder / f"{k}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the pixels of digits."""
    folder = tmp_path_factory.mktemp("stores") / "pixels"
    asked = ["extract", "--model", "pixels:8", "--data", "digits", "--out", str(folder), "--split", "val", "--quiet"]
    assert cli.run([*asked, "--pool", "8"]) == 0
    return folder


def seen(model: str, photos: list[Path], steps: list[float | None], blocks: list[int]) -> list[list[_seen.Glance]]:
    from twofold.steps import _images

    pictures = [_images.picture(path) for path in photos]
    numbers = [_images.own_number(p) for p in pictures]
    return _seen.glances(backbones.load(model), pictures, numbers, steps, blocks, 0)


FAMILIES = (
    "DDPMPipeline",
    "DiTPipeline",
    "StableDiffusionPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
    "ScoreSdeVePipeline",
)


@pytest.mark.parametrize("family", [*FAMILIES, "pixels:8"])
def test_every_family_shows_its_blocks(
    family: str, photos: list[Path], tmp_path_factory: pytest.TempPathFactory, command: Command
) -> None:
    folder = tmp_path_factory.getbasetemp() / "families" / family.replace(":", "")
    model = family if ":" in family else f"diffusers:{tiny_models.pipeline(family, folder)}"
    out = folder.parent / f"{folder.name}.png"
    code, told, err = command("show", model, *photos[:2], "--out", out, "--json")
    assert code == 0, err
    with Image.open(out) as picture:
        assert picture.width > 250 and len(picture.convert("RGB").getcolors(10**6) or []) > 50
    assert len(json.loads(told)["blocks"]) <= 4


def test_colours_are_deterministic_and_mean_the_same_in_every_image(tiny_run: Path, photos: list[Path]) -> None:
    first, again = (_seen.colours(seen(str(tiny_run), photos, [20.0, 300.0], [5]), 5) for _ in range(2))
    assert first[1] == again[1] and 0 < first[1] <= 1
    for one, other in zip(first[0], again[0], strict=True):
        np.testing.assert_array_equal(one, other)
    shown = np.stack([picture for line in first[0] for picture in line])
    assert shown.shape[:2] == (8, shown.shape[1]) and shown.min() >= 0 and shown.max() <= 1
    # One scale for all: the whole range is used over all pictures, and not in each.
    assert shown.max() == 1 and any(picture.max() < 1 for line in first[0] for picture in line)


def test_colours_are_the_components_of_all_positions() -> None:
    chance = np.random.default_rng(0)
    maps = [chance.normal(size=(6, 5, 5)) * np.array([9, 5, 3, 0.1, 0.1, 0.1])[:, None, None] for _ in range(3)]
    shown, share = _seen.colours([[_seen.Glance(np.zeros((1, 1, 3)), {1: m})] for m in maps], 1)
    assert share > 0.99
    # The strongest channel is the first colour, up to sign; so with the others.
    for colour, channel in enumerate(range(3)):
        values = np.concatenate([m[channel].ravel() for m in maps])
        drawn = np.concatenate([line[0][..., colour].ravel() for line in shown])
        inner = (drawn > 0) & (drawn < 1)
        assert abs(np.corrcoef(values[inner], drawn[inner])[0, 1]) > 0.95


def test_a_map_of_few_channels_or_without_change_has_colours() -> None:
    for maps in (np.zeros((5, 3, 3)), np.random.default_rng(0).normal(size=(1, 4, 4)), np.ones((2, 2, 2))):
        shown, share = _seen.colours([[_seen.Glance(np.zeros((1, 1, 3)), {1: maps})]], 1)
        assert np.isfinite(shown[0][0]).all() and np.isfinite(share)


def test_one_position_is_too_few() -> None:
    glance = _seen.Glance(np.zeros((1, 1, 3)), {3: np.ones((8, 1, 1))})
    with pytest.raises(BadSetting, match="Block 3 has 1x1 positions, 1 in all; colours need 4"):
        _seen.colours([[glance]], 3)


def test_the_noised_image_is_the_one_that_the_network_sees(tiny_run: Path, photos: list[Path]) -> None:
    (line,) = seen(str(tiny_run), photos[:1], [0.0, 400.0], [5])
    clean = np.asarray(Image.open(photos[0]).convert("L"), dtype=float)
    near, far = (np.abs(np.asarray(g.entering, dtype=float).reshape(8, 8, -1)[..., 0] - clean).mean() for g in line)
    assert near < 10 < far


def test_the_same_picture_twice(tiny_run: Path, photos: list[Path], tmp_path: Path, command: Command) -> None:
    for name in ("a.png", "b.png", "c.svg"):
        assert command("show", tiny_run, *photos[:2], "--out", tmp_path / name, "--t", "20,200")[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert insides.is_ours(tmp_path / "a.png") and insides.is_ours(tmp_path / "c.svg")
    # Flags may stand anywhere.
    assert command("show", tiny_run, "--out", tmp_path / "a.png", photos[0], "--blocks", "mid")[0] == 0
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_an_image_of_a_store_is_its_own_nearest_neighbour(
    kept: Path, photos: list[Path], tmp_path: Path, command: Command
) -> None:
    asked = ("show", "pixels:8", *photos, "--neighbours", kept, "--out", tmp_path / "near.png", "--num", 3, "--json")
    code, told, err = command(*asked)
    assert code == 0, err
    labels = datasets.load("digits").build("val").labels[:4].tolist()
    for one, label in zip(json.loads(told)["images"], labels, strict=True):
        assert len(one["near"]) == 3 and one["near"][0] == {"label": str(label), "similarity": 1.0}
        assert [n["similarity"] for n in one["near"]] == sorted((n["similarity"] for n in one["near"]), reverse=True)
    assert insides.is_ours(tmp_path / "near.png")


def test_classes_lie_apart_where_features_tell_them_apart(
    kept: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = []
    draw = insides.classes
    monkeypatch.setattr(
        insides, "classes", lambda points, labels, *rest: placed.append((points, labels)) or draw(points, labels, *rest)
    )
    code, told, err = command("show", "pixels:8", "--classes", kept, "--out", tmp_path / "classes.svg", "--json")
    assert code == 0, err
    assert json.loads(told)["n"] == 269
    points, labels = placed[0]
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag(np.full(len(points), np.inf))
    assert (labels[apart.argmin(1)] == labels).mean() > 0.9


def test_umap_is_asked_for_where_it_is_not(kept: Path, tmp_path: Path, command: Command) -> None:
    import importlib.util

    if importlib.util.find_spec("umap"):
        pytest.skip("umap is here")
    asked = ("show", "pixels:8", "--classes", kept, "--layout", "umap", "--out", tmp_path / "x.png")
    refused(command(*asked), "needs the library umap-learn", "--layout tsne")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["RUN", "--out", "OUT.png"], ["show needs IMAGE"]),
        (["--out", "OUT.png"], ["show needs MODEL"]),
        (["RUN", "IMAGE", "--out", "OUT.jpg"], ["must end in .png or .svg"]),
        (["RUN", "IMAGE", "--out", "MINE.png"], ["is no picture of `twofold show`"]),
        (["RUN", "nowhere.png", "--out", "OUT.png"], ["nowhere.png does not exist"]),
        (["RUN", "TEXT", "--out", "OUT.png"], ["does not decode"]),
        (["RUN", "IMAGE", "--out", "OUT.png", "--blocks", "midd"], ["Did you mean 'mid'"]),
        (["RUN", "IMAGE", "--out", "OUT.png", "--t", "1000"], ["0 to 999"]),
        (["pixels:8", "IMAGE", "--out", "OUT.png", "--t", "10"], ["clean images"]),
        (["RUN", "IMAGE", "--out", "OUT.png", "--cell", "b1_p1"], ["--cell is of a store"]),
        (["pixels:8", "IMAGE", "--out", "OUT.png", "--neighbours", "STORE", "--classes", "STORE"], ["not both"]),
        (["pixels:8", "IMAGE", "--out", "OUT.png", "--classes", "STORE"], ["Leave IMAGE out"]),
        (["pixels:8", "IMAGE", "--out", "OUT.png", "--neighbours", "STORE", "--t", "9"], ["A store says where"]),
        (["pixels:8", "IMAGE", "--out", "OUT.png", "--neighbours", "nowhere"], ["nowhere is not a feature store"]),
        (["RUN", "IMAGE", "--out", "OUT.png", "--neighbours", "STORE"], ["holds features of pixels:8, not of"]),
        (["pixels:9", "--out", "OUT.png", "--classes", "STORE"], ["holds features of pixels:8, not of pixels:9"]),
        (["pixels:8", "--out", "OUT.png", "--classes", "STORE", "--split", "train"], ["no finished train", "extract"]),
        (["pixels:8", "--out", "OUT.png", "--classes", "STORE", "--cell", "b1_p7"], ["Did you mean 'b1_p8'"]),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: list[str], says: list[str], tiny_run: Path, kept: Path, photos: list[Path], tmp_path: Path,
    command: Command,
) -> None:  # fmt: skip
    (tmp_path / "mine.png").write_bytes(photos[0].read_bytes())
    (tmp_path / "text.png").write_text("no picture")
    named = {"RUN": str(tiny_run), "IMAGE": str(photos[0]), "TEXT": str(tmp_path / "text.png"), "STORE": str(kept),
             "MINE.png": str(tmp_path / "mine.png")}  # fmt: skip
    given = [named.get(a, a.replace("OUT", str(tmp_path / "out"))) for a in arguments]
    refused(command("show", *given), *says)
    assert {p.name for p in tmp_path.iterdir()} == {"mine.png", "text.png"}
    assert (tmp_path / "mine.png").read_bytes() == photos[0].read_bytes()


def test_a_store_whose_images_changed_is_refused(photos: list[Path], tmp_path: Path, command: Command) -> None:
    for split in ("train", "val", "test"):
        for k, photo in enumerate(photos):
            (tmp_path / "data" / split / f"class{k % 2}").mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, tmp_path / "data" / split / f"class{k % 2}" / f"{split}{k}.png")
    data, kept = f"folder:{tmp_path / 'data'}", tmp_path / "store"
    made = command("extract", "--model", "pixels:8", "--data", data, "--out", kept, "--pool", "1,8", "--split", "val")
    assert made[0] == 0, made
    asked = ("show", "pixels:8", photos[0], "--neighbours", kept, "--out", tmp_path / "near.png", "--num", 2)
    refused(command(*asked), "holds 2 cells. Give --cell: b1_p1, b1_p8")
    assert command(*asked, "--cell", "b1_p8")[0] == 0
    shutil.copy(photos[0], tmp_path / "data" / "val" / "class0" / "more.png")
    refused(command(*asked, "--cell", "b1_p8"), "was made from other images than")


def test_more_images_than_a_figure_has_room_for_are_refused(
    photos: list[Path], tmp_path: Path, command: Command
) -> None:
    (tmp_path / "many").mkdir()
    for k in range(25):
        shutil.copy(photos[0], tmp_path / "many" / f"{k}.png")
    refused(
        command("show", "pixels:8", tmp_path / "many", "--out", tmp_path / "x.png"), "24 images at most", "holds 25"
    )


def test_noise_is_the_images_own(tiny_run: Path, photos: list[Path]) -> None:
    torch.manual_seed(5)
    together = seen(str(tiny_run), photos[:2], [300.0], [5])
    torch.manual_seed(6)
    alone = seen(str(tiny_run), photos[1:2], [300.0], [5])
    np.testing.assert_array_equal(together[1][0].maps[5], alone[0][0].maps[5])

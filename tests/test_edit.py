"""`twofold edit`: what is known of an image stays, whatever the network thinks of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.backbones._network import DiffusionNetwork
from twofold.datasets import base as datasets
from twofold.steps import _editing

Command = Callable[..., tuple[int, str, str]]
FEW = ("--steps", "4", "--device", "cpu", "--json", "--quiet")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two test digits, a mask of their lower half, and the first at half its size."""
    folder, rows = tmp_path_factory.mktemp("pictures"), datasets.load("digits").build("test")
    digits = [image[0].numpy() for image in rows.read(range(2))]
    mask = np.zeros((8, 8), np.uint8)
    mask[4:] = 255
    small = digits[0].reshape(4, 2, 4, 2).mean((1, 3)).round().astype(np.uint8)
    paths = [folder / f"{name}.png" for name in ("a", "b", "mask", "small")]
    for path, pixels in zip(paths, (*digits, mask, small), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def grey(path: object) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(Image.open(str(path)).convert("L")).astype(int)


def edit(command: Command, run: Path, task: str, *arguments: object) -> list[np.ndarray]:  # type: ignore[type-arg]
    code, out, err = command("edit", task, "--model", f"run:{run}", *FEW, *arguments)
    assert code == 0, err
    return [grey(path) for one in json.loads(out)["images"] for path in one["results"]]


@pytest.mark.parametrize("average", [1, 3])
def test_inpaint_keeps_known_pixels(
    tiny_run: Path, pictures: list[Path], tmp_path: Path, command: Command, average: int
) -> None:
    a, _, mask, _ = pictures
    out = tmp_path / "out.png"
    (made,) = edit(
        command, tiny_run, "inpaint", "--image", a, "--mask", mask, "--out", out, "--average", average,
        "--picture", tmp_path / "both.png",
    )  # fmt: skip
    known = grey(mask) < 128
    assert abs(made - grey(a))[known].max() <= 1
    assert (made != grey(a))[~known].any()
    assert (tmp_path / "both.png").exists()


@pytest.mark.parametrize("average", [1, 3])
def test_superres_averages_to_what_was_given(
    tiny_run: Path, pictures: list[Path], tmp_path: Path, command: Command, average: int
) -> None:
    small = pictures[3]
    arguments = ("--image", small, "--factor", 2, "--out", tmp_path / "out.png", "--average", average)
    (made,) = edit(command, tiny_run, "superres", *arguments)
    assert made.shape == (8, 8) and made.std() > 0
    assert abs(made.reshape(4, 2, 4, 2).mean((1, 3)) - grey(small)).max() <= 1


def test_means_hold_where_pixels_are_at_their_ends() -> None:
    small = torch.tensor([[[[-1.0, 1.0], [0.9, -0.3]]]])
    found = _editing.known_means(small, 2)(5 * torch.randn(1, 1, 4, 4, generator=torch.manual_seed(0)))
    assert found.abs().max() <= 1
    assert (_editing.shrunk(found, 2) - small).abs().max() < 1e-5


@pytest.mark.parametrize("level", [10, 40])
def test_the_level_of_noise_is_found_on_a_smooth_image(level: int) -> None:
    chance = np.random.default_rng(0)
    image = np.linspace(60, 190, 64)[None, :, None] + level * chance.standard_normal((64, 64, 1))
    assert _editing.noise_level(image) == pytest.approx(level, rel=0.1)


def test_variants_belong_to_the_image_and_differ(
    tiny_run: Path, pictures: list[Path], tmp_path: Path, command: Command
) -> None:
    a, b, *_ = pictures
    many = edit(command, tiny_run, "vary", "--image", f"{a},{b}", "--num", 2, "--out", tmp_path / "many")
    (one,) = edit(command, tiny_run, "vary", "--image", a, "--out", tmp_path / "one.png")
    assert len(many) == 4 and (many[0] == one).all() and (many[0] != many[1]).any()
    near, far = (
        edit(command, tiny_run, "vary", "--image", a, "--sigma", s, "--out", tmp_path / f"{s}.png")[0]
        for s in (0.05, 9)
    )
    assert abs(near - grey(a)).mean() < abs(far - grey(a)).mean()


def test_denoise_with_known_and_estimated_level(
    tiny_run: Path, pictures: list[Path], tmp_path: Path, command: Command
) -> None:
    told = [
        edit(command, tiny_run, "denoise", "--image", pictures[0], "--out", tmp_path / f"{k}.png", *more)[0]
        for k, more in enumerate([("--noise-level", 1), ("--noise-level", 60), ()])
    ]
    assert abs(told[0] - grey(pictures[0])).mean() < abs(told[1] - grey(pictures[0])).mean()


def test_the_same_again_is_done_and_other_files_are_not_written_over(
    tiny_run: Path, pictures: list[Path], tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out.png"
    arguments = ("edit", "vary", "--model", f"run:{tiny_run}", "--image", pictures[0], "--out", out, *FEW)
    assert command(*arguments)[0] == 0
    before, picture = out.stat().st_mtime_ns, ("--picture", tmp_path / "both.png")
    assert command(*arguments)[0] == 0 and out.stat().st_mtime_ns == before
    for _ in range(2):
        assert command(*arguments, *picture)[0] == 0 and out.stat().st_mtime_ns == before
    code, _, err = command(*arguments, "--seed", "1")
    assert code == 2 and "is there" in err and err.count("\n") == 1


def test_no_pass_has_more_images_than_a_batch(
    tiny_run: Path, pictures: list[Path], tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many results and samples an image has; which are in a pass changes nothing."""
    sizes, whole = [], DiffusionNetwork.estimate

    def noting(self: DiffusionNetwork, x: torch.Tensor, *more: Any) -> Any:
        sizes.append(len(x))
        return whole(self, x, *more)

    monkeypatch.setattr(DiffusionNetwork, "estimate", noting)
    given = ("--image", f"{pictures[0]},{pictures[1]}", "--mask", pictures[2], "--num", 3, "--average", 2)
    large = edit(command, tiny_run, "inpaint", *given, "--out", tmp_path / "large")
    assert max(sizes) == 12
    sizes.clear()
    small = edit(command, tiny_run, "inpaint", *given, "--out", tmp_path / "small", "--batch", 4)
    assert max(sizes) == 4
    assert all(abs(a - b).max() <= 1 for a, b in zip(large, small, strict=True))


def test_colours_that_a_grey_network_loses_are_told_of(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    given = ("edit", "denoise", "--model", f"run:{tiny_run}", "--noise-level", 1, "--device", "cpu")
    for name, colour in (("grey", (9, 9, 9)), ("red", (200, 0, 0))):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
        code, _, err = command(*given, "--image", tmp_path / f"{name}.png", "--out", tmp_path / f"out-{name}.png")
        assert code == 0 and ("colours" in err) is (name == "red"), err


@pytest.mark.parametrize(
    "task, more, says",
    [
        ("vary", ("--model", "pixels"), "cannot generate"),
        ("superres", ("--factor", 2), "takes 4x4"),
        ("superres", ("--factor", 3), "2 or 4"),
        ("denoise", ("--factor", 2), "is of edit superres"),
        ("vary", ("--sigma", 1, "--t", 9), "Both --t and --sigma"),
        ("superres", (), "takes 4x4"),
        ("inpaint", (), "needs --mask"),
        ("inpaint", ("--mask", "SMALL"), "takes 8x8"),
        ("vary", ("--noise-level", 9), "of edit denoise"),
        ("vary", ("--num", 2), "Give a folder"),
        ("vary", ("--image", "none.png"), "does not exist"),
        ("vary", ("--image", "FOLDER"), "outside"),
        ("vary", ("--out", "OUT.jpg"), "ends in .png"),
        ("vary", ("--picture", "OUT"), "end in .png"),
        ("vary", ("--picture", "OUT.png"), "both"),
        ("vary", ("--picture", "THERE"), "no picture of `twofold edit`"),
        ("inpaint", ("--mask", "BLACK"), "white"),
        ("paint", (), "paint"),
    ],
)
def test_mistakes_are_one_line(
    tiny_run: Path,
    pictures: list[Path],
    tmp_path: Path,
    command: Command,
    task: str,
    more: tuple[object, ...],
    says: str,
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    places = {
        "SMALL": pictures[3], "FOLDER": tmp_path, "OUT": tmp_path / "out", "OUT.png": tmp_path / "out.png",
        "OUT.jpg": tmp_path / "out.jpg", "THERE": tmp_path / "black.png", "BLACK": tmp_path / "black.png",
    }  # fmt: skip
    more = tuple(places.get(str(m), m) for m in more)
    given = ("--model", f"run:{tiny_run}", "--image", pictures[0], "--out", tmp_path / "out.png")
    code, out, err = command("edit", task, *given, *FEW, *more)
    assert code == 2 and not out and err.count("\n") == 1 and says in err, err
    assert not list(tmp_path.glob("out*"))

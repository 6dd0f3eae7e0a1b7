"""Both qualities while training: what is noted, what is kept, and that a run stopped in between notes the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from twofold import files
from twofold.backbones import base
from twofold.backbones._network import DiffusionNetwork
from twofold.datasets import base as datasets
from twofold.steps import _batching, _part, _probing, _quality
from twofold.steps._quality import Distance
from twofold.steps._trainer import Trainer

Command = Callable[..., tuple[int, str, str]]
TINY = ("pretrain", "--data", "digits", "--widths", "8,8", "--batch", 32, "--warmup", 0, "--ema", 0, "--quiet")
TRACK = ("--images", 192, "--track", 64, "--track-samples", 20, "--probe-every", 0, "--labels", "--augment", "edm")
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def tracked(out: Path) -> list[dict[str, float]]:
    return [record for record in files.read_lines(out / "metrics.jsonl") if "fd" in record]


def test_the_best_of_each_quality_is_a_model_and_a_stopped_run_keeps_the_same(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    scores = iter([(3.0, 0.5), (2.0, 0.4), (2.5, 0.6), (2.0, 0.4), (2.5, 0.6)])
    given: list[tuple[float, float]] = []
    monkeypatch.setattr(Distance, "of", lambda *_: (given.append(next(scores)), given[-1][0])[1])
    monkeypatch.setattr(_quality, "best_tap", lambda *_: (given[-1][1], "b=5, sigma 0.18"))
    code, _, err = command(*TINY, *TRACK, "--out", whole, "--save-every", 64)
    assert code == 0, err
    assert [(r["images"], r["fd"], r["tapped"]) for r in tracked(whole)] == [
        (64, 3.0, 0.5), (128, 2.0, 0.4), (192, 2.5, 0.6),
    ]  # fmt: skip
    for name, images in (("best-fd", 128), ("best-probe", 192)):
        assert json.loads((whole / name / "finished.json").read_text())["images"] == images
        assert base.load(f"run:{whole / name}", device="cpu").class_names == tuple("0123456789")  # type: ignore[attr-defined]
    # Without a half-life the average is the network, so the last one is the run's own.
    last, kept = (load_file(folder / WEIGHTS) for folder in (whole, whole / "best-probe"))
    assert all(torch.equal(last[name], kept[name]) for name in last)

    save = Trainer.save

    def interrupt(self: Trainer, path: Path) -> None:
        if self.seen == 128:  # noted and kept, and not yet in a checkpoint
            raise KeyboardInterrupt
        save(self, path)

    scores = iter([(3.0, 0.5), (2.0, 0.4), (2.0, 0.4), (2.5, 0.6)])
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", interrupt)
        assert command(*TINY, *TRACK, "--out", stopped, "--save-every", 64)[0] == 130
    assert command(*TINY, *TRACK, "--out", stopped, "--save-every", 64)[0] == 0
    assert tracked(stopped) == tracked(whole)
    for name in ("best-fd", "best-probe"):
        assert (stopped / name / WEIGHTS).read_bytes() == (whole / name / WEIGHTS).read_bytes()


def test_measuring_takes_the_threads_of_those_that_wait(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, used = torch.get_num_threads(), []
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(Distance, "of", lambda *_: (used.append(torch.get_num_threads()), 1.0)[1])
    monkeypatch.setattr(_quality, "best_tap", lambda *_: (0.5, "b=5, sigma 0.18"))
    monkeypatch.setattr(_probing, "accuracy", lambda *_: (used.append(torch.get_num_threads()), 0.5)[1])
    code, _, err = command(*TINY, *TRACK, "--images", 64, "--probe-every", 64, "--out", tmp_path / "out")
    assert code == 0, err
    assert used == [3 * own] * 2 and torch.get_num_threads() == own


def test_what_is_tracked_is_measured_and_shown(tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    code, _, err = command(*TINY, *TRACK, "--out", out)
    assert code == 0, err
    assert [record["images"] for record in tracked(out)] == [64, 128, 192]
    assert all(record["fd"] > 0 and 0.1 < record["tapped"] <= 1 for record in tracked(out))
    assert command("report", out, "--out", tmp_path / "page")[0] == 0
    assert "Fréchet distance from val" in (tmp_path / "page" / "index.html").read_text()


def test_tracking_changes_nothing_of_what_is_trained(tmp_path: Path, command: Command) -> None:
    assert command(*TINY, *TRACK, "--out", tmp_path / "with")[0] == 0
    assert command(*TINY, *TRACK, "--track", 0, "--out", tmp_path / "without")[0] == 0
    assert (tmp_path / "with" / WEIGHTS).read_bytes() == (tmp_path / "without" / WEIGHTS).read_bytes()


def test_samples_that_are_the_data_have_no_distance_and_noise_has(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = datasets.load("digits")
    distance = Distance("pixels", dataset, 200, 0, "cpu")
    val = _part.few(dataset.build("val"), 200)
    monkeypatch.setattr(_quality, "_images", lambda _backbone, _seed, part: torch.stack(list(val.read(part))))
    assert distance.of(None) == pytest.approx(0, abs=1e-6)  # type: ignore[arg-type]
    monkeypatch.setattr(
        _quality, "_images", lambda _b, _s, part: torch.randint(0, 256, (len(part), 3, 8, 8), dtype=torch.uint8)
    )
    assert distance.of(None) > 1  # type: ignore[arg-type]


@pytest.fixture
def sorted_folder(tmp_path: Path) -> Path:
    """Three classes of forty images, one behind the other as folders have them."""
    for label in range(3):
        place = tmp_path / "sorted" / f"class{label}"
        place.mkdir(parents=True)
        for k in range(40):
            Image.new("RGB", (8, 8), (80 * label, k, 0)).save(place / f"{k:02d}.png")
    return tmp_path / "sorted"


def test_some_images_are_images_of_all_classes(sorted_folder: Path) -> None:
    dataset = datasets.load(f"folder:{sorted_folder}")
    for split, most in (("train", 20), ("val", 6)):
        rows = dataset.build(split)
        some = _part.few(rows, most)
        assert len(some) == most and set(some.labels) == {0, 1, 2}
        assert np.array_equal(some.index, _part.few(rows, most).index)
        assert _part.few(rows, len(rows)) is rows
    assert len(Distance("pixels", dataset, 6, 0, "cpu")._rows) == 6


def test_a_probe_of_a_few_rows_has_all_classes(
    sorted_folder: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_probing, "ROWS", 12)
    given = [*TINY, *TRACK[:-3], "--probe-every", 96, "--data", f"folder:{sorted_folder}", "--out", tmp_path / "out"]
    code, _, err = command(*given)
    assert code == 0, err
    assert all(0 < record["tapped"] <= 1 for record in tracked(tmp_path / "out"))


@pytest.mark.parametrize("kept", ["class0", "."])
def test_what_has_no_classes_is_trained_on_and_not_probed(
    kept: str, sorted_folder: Path, tmp_path: Path, command: Command
) -> None:
    """One class, or none, where the folder holds images alone; nothing fails when the first probe would be due."""
    data = tmp_path / "data" / kept
    shutil.copytree(sorted_folder / "class0", data)
    out = tmp_path / "out"
    code, _, err = command(*TINY, *TRACK[:5], "20", "--data", f"folder:{tmp_path / 'data'}", "--out", out)
    assert code == 0, err
    noted = list(files.read_lines(out / "metrics.jsonl"))
    assert sum("fd" in record for record in noted) == 3
    assert not any("probe" in record or "tapped" in record for record in noted)
    assert "nothing is probed" in (out / "log.txt").read_text()
    assert (out / "best-fd").is_dir() and not (out / "best-probe").exists()


def test_looking_at_a_network_takes_no_more_images_a_pass_than_memory_holds(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that trains with few images a pass would run out of memory where it is probed with hundreds."""
    sizes: list[int] = []
    predict = DiffusionNetwork._predict

    def noting(self: DiffusionNetwork, x: torch.Tensor, *more: Any) -> torch.Tensor:
        sizes.append(len(x))
        return predict(self, x, *more)

    monkeypatch.setattr(DiffusionNetwork, "_predict", noting)
    monkeypatch.setattr(_batching, "choose", lambda *_: 32)
    monkeypatch.setattr(_probing, "ROWS", 70)
    code, _, err = command(*TINY, "--images", 32, "--track", 32, "--track-samples", 70, "--out", tmp_path / "out")
    assert code == 0, err
    assert sizes and max(sizes) <= 32


def test_qualities_need_images_of_val(sorted_folder: Path, tmp_path: Path, command: Command) -> None:
    data = tmp_path / "data"
    for split, images in (("train", 4), ("val", 1)):
        (data / split).mkdir(parents=True)
        for path in sorted((sorted_folder / "class0").iterdir())[:images]:
            shutil.copy(path, data / split)
    code, _, err = command(*TINY, *TRACK[:5], "20", "--data", f"folder:{data}", "--out", tmp_path / "out")
    assert code == 2 and err.count("\n") == 1 and "two images of val" in err, err
    assert not (tmp_path / "out").exists()


def test_features_that_cannot_compare_are_one_line(tiny_run: Path, tmp_path: Path, command: Command) -> None:
    for wrong, says in ((str(tiny_run), "is a diffusion model"), ("pixel", "'pixels'")):
        code, _, err = command(*TINY, *TRACK, "--track-features", wrong, "--out", tmp_path / "out")
        assert code == 2 and err.count("\n") == 1 and says in err, err
        assert not (tmp_path / "out").exists()

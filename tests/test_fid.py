"""`twofold fid`: what stands on its two sides, what its scores are called, and what it refuses in the first second."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny_models
from test_cli import refused
from twofold import files, results
from twofold.analyses.frechet import Statistics, distance
from twofold.datasets import base as datasets
from twofold.records import Cell, Score, Tap
from twofold.steps import fid

Command = Callable[..., tuple[int, str, str]]
FAST = ("--features", "pixels:8")


def pixels(split: str) -> np.ndarray:
    """What pixels:8 reads of digits: [N, 192]."""
    rows = datasets.load("digits").build(split)
    return np.stack([image.numpy().ravel() / 255 for image in rows.read(range(len(rows)))])


def write(folder: Path, split: str, count: int | None = None) -> Path:
    """A split of digits as PNGs, in folders that are no classes, and one beside them."""
    rows = datasets.load("digits").build(split)
    for k in range(count or len(rows)):
        path = folder / (f"part{k % 3}/deep" if k else "") / f"{k:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rows.read([k])[0, 0].numpy()).save(path)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("images"), "test")


def scores(answer: tuple[int, str, str]) -> dict[str, dict[str, Any]]:
    code, out, err = answer
    assert code == 0, err
    return {score["name"]: score for score in json.loads(out)["scores"]}


def test_the_distance_of_two_splits_is_that_of_their_pixels(command: Command, tmp_path: Path) -> None:
    found = scores(command("fid", "digits@train", "digits@test", *FAST, "--out", str(tmp_path / "run"), "--json"))
    expected = distance(Statistics.of(pixels("train")), Statistics.of(pixels("test")))
    assert list(found) == ["fd_pixels_8", "kid_pixels_8", "precision_pixels_8", "recall_pixels_8"]
    assert found["fd_pixels_8"]["value"] == pytest.approx(expected, rel=1e-5)
    for name, score in found.items():
        assert score["low"] <= score["value"] <= score["high"] and score["about"]["dimensions"] == 192
        assert (score["split"], score["n"]) == (("test", 450) if name.startswith("recall") else ("train", 1078))
    assert results.read(tmp_path / "run")[0].value == found["fd_pixels_8"]["value"]


def test_a_second_run_reads_nothing_and_measures_what_is_new(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ("fid", "digits@val", "digits@test", *FAST, "--out", str(tmp_path / "run"), "--json")
    first = scores(command(*told, "--measures", "fd"))
    monkeypatch.setattr("twofold.backbones.pixels.PixelsBackbone.features", None)  # a forward pass would fail
    more = scores(command(*told))
    assert first.items() <= more.items() and len(more) == 4 == len(results.read(tmp_path / "run"))
    assert scores(command(*told)) == more
    refused(command(*told, "--seed", "1"), "seed is 0 there, 1 here")


def test_a_folder_is_all_images_below_it(command: Command, folder: Path, tmp_path: Path) -> None:
    by_name = scores(command("fid", "digits@test", "digits@train", *FAST, "--json"))
    by_folder = scores(command("fid", str(folder), "digits@train", *FAST, "--json"))
    assert (by_folder["fd_pixels_8"]["n"], by_folder["fd_pixels_8"]["split"]) == (450, "all")
    assert {n: s["value"] for n, s in by_folder.items()} == {
        n: pytest.approx(s["value"], rel=1e-4) for n, s in by_name.items()
    }
    run = tmp_path / "samples"
    write(run / "images", "test", 20)
    Image.new("RGB", (80, 80)).save(run / "grid.png")
    (run / "config.toml").write_text('verb = "sample"\n')
    assert scores(command("fid", str(run), str(folder), *FAST, "--json"))["fd_pixels_8"]["n"] == 20


def test_without_out_nothing_is_left(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert scores(command("fid", "digits@val", "digits@val", *FAST, "--json"))["fd_pixels_8"]["value"] < 1e-6
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def store(command: Command, tmp_path: Path) -> str:
    where = str(tmp_path / "store")
    told = (
        "extract",
        "--model",
        "pixels:8",
        "--data",
        "digits",
        "--out",
        where,
        "--pool",
        "1,8",
        "--precision",
        "fp32",
    )
    assert command(*told)[0] == 0
    return where


def test_stores_are_sides_like_images(command: Command, store: str) -> None:
    expected = scores(command("fid", "digits@test", "digits@train", *FAST, "--json"))["fd_pixels_8"]["value"]
    fast = ("--measures", "fd", "--pool", "8", "--json")
    for a, b in ((f"{store}@test", f"{store}@train"), ("digits@test", f"{store}@train")):
        assert scores(command("fid", a, b, *fast))["fd_pixels_8"]["value"] == pytest.approx(expected, rel=1e-3)
    whole = scores(command("fid", store, f"{store}@train", *fast))["fd_pixels_8"]
    assert (whole["n"], whole["split"]) == (1797, "all")


def test_stores_that_do_not_fit_are_one_line(command: Command, store: str, tmp_path: Path) -> None:
    refused(command("fid", store, store), "hold several columns that fit", "b1_p1, b1_p8")
    refused(command("fid", store, store, "--pool", "2"), "no pooled column")
    refused(command("fid", store, store, "--pool", "1", *FAST), "know what they were read with")
    refused(command("fid", store, "digits", "--sigma", "1"), "--t")
    other = str(tmp_path / "other")
    assert command("extract", "--model", "pixels:4", "--data", "digits", "--out", other, "--pool", "1")[0] == 0
    refused(command("fid", store, other, "--pool", "1"), "not read in the same way", "backbone is pixels-8 there")
    half = ("--pool", "1", "--precision", "bf16", "--out", str(tmp_path / "run"))
    refused(command("fid", store, "digits", *half), "precision is float32 there, bfloat16 here")
    refused(command("fid", store, "digits", "--pool", "1", "--features", "pixels:4"), "backbone is pixels-8 there")
    assert not (tmp_path / "run").exists()
    shutil.rmtree(Path(store) / "val")
    refused(command("fid", f"{store}@val", store), "No split", "'val'", "test, train")


def test_a_diffusion_model_is_read_where_it_is_told(command: Command, tiny_run: Path) -> None:
    told = ("fid", "digits@val", "digits@test", "--features", f"run:{tiny_run}", "--measures", "fd", "--json")
    refused(command(*told), "diffusion model", "--block", "twofold blocks")
    refused(command(*told, "--block", "mid"), "diffusion model")
    found = scores(command(*told, "--block", "mid", "--t", "30"))
    (score,) = found.values()
    assert score["name"] == f"fd_{tiny_run.name}_{score['about']['cell']}" and score["value"] > 0
    assert (score["about"]["block"], score["about"]["t"], score["about"]["pool"]) == ("mid", 30.0, 1)


def test_fid_is_of_the_published_weights_alone(command: Command, tmp_path: Path) -> None:
    weights, few = tiny_models.inception(tmp_path), write(tmp_path / "few", "val", 4)
    found = scores(command("fid", str(few), str(few), "--weights", str(weights), "--json"))
    assert list(found) == [f"{name}_inception" for name in ("fd", "kid", "precision", "recall")]
    published, there = "inception-6726825d00000000", {"name": "Mixed_7c", "pool": 1}
    assert fid.is_fid({"backbone": published, "precision": "float32"}, there)
    assert not fid.is_fid({"backbone": found["fd_inception"]["about"]["backbone"], "precision": "float32"}, there)
    assert not fid.is_fid({"backbone": published, "precision": "bfloat16"}, there)
    for elsewhere in ({"name": "Mixed_6e"}, {"pool": 2}):
        assert not fid.is_fid({"backbone": published, "precision": "float32"}, there | elsewhere)
    names = [fid.named(Score(n, 0.5, "all", 4), n, {"word": "", "a_split": "train", "b_split": "all"})
             for n in ("fd", "kid", "precision", "recall")]  # fmt: skip
    assert [(s.name, s.split) for s in names] == [
        ("fid", "train"), ("kid", "train"), ("precision", "train"), ("recall", "all"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "called"),
    [
        ("torchvision:squeezenet1_1@weights/x.safetensors", "squeezenet1_1"), ("timm:vit_small.dino", "vit_small_dino"),
        ("run:runs/digits", "digits"), ("adm:models/64x64.pt", "64x64"), ("pixels", "pixels"),
        ("inception?untrained", "inception_untrained"), ("inception:a/b.pth", "inception"),
        ("diffusers:google/ddpm-cifar10-32", "ddpm_cifar10_32"), ("run:.", "run"),
    ],
)  # fmt: skip
def test_scores_are_named_after_the_network(model: str, called: str) -> None:
    assert fid.word(model, Cell(Tap(3, None), 1)) == called
    assert fid.word(model, Cell(Tap(3, 30.0), 1)) == f"{called}_b3_t30_p1"


def test_mistakes_are_one_line_before_any_work(command: Command, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    one = write(tmp_path / "one", "val", 1)
    refused(command("fid", str(tmp_path / "empty"), "digits", *FAST), "holds no images")
    refused(command("fid", str(tmp_path / "none"), "digits", *FAST), "does not exist", "DATA@SPLIT")
    refused(command("fid", "digits", *FAST), "fid needs B")
    refused(command("fid", "", "digits", *FAST), "names no images")
    refused(command("fid", str(one / "0000.png"), "digits", *FAST), "is a file")
    refused(command("fid", "digitz", "digits", *FAST), "digitz", "digits")
    refused(command("fid", "digits@valid", "digits", *FAST), "'valid'", "Did you mean 'val'")
    refused(command("fid", f"folder:{folder}?all@test", "digits", *FAST), "holds no images", "another split")
    refused(command("fid", str(one), "digits", *FAST), "has 1 images; 4 are needed")
    refused(command("fid", str(one), "digits", *FAST, "--measures", "fd"), "has 1 images; 2 are needed")
    refused(command("fid", "digits", "digits", *FAST, "--block", "9"), "no block 9")
    refused(command("fid", "digits", "digits", *FAST, "--t", "9"), "clean images")
    refused(command("fid", "digits", "digits", *FAST, "--weights", "x"), "Give one of them")
    refused(command("fid", "digits", "digits", "--weights", str(tmp_path / "x.pth")), "x.pth does not exist")
    refused(command("fid", "digits", "digits", *FAST, "--measures", "is"), "'is'", "fd, kid, pr")
    (one / "config.toml").write_text('verb = "probe"\n')
    refused(command("fid", str(one), "digits", *FAST), "a run without images")


def test_few_images_for_many_features_are_warned_of(command: Command, tmp_path: Path) -> None:
    few = write(tmp_path / "few", "val", 50)
    code, _, err = command("fid", str(few), "digits@test", *FAST, "--measures", "fd")
    assert code == 0 and "50 images for 192 features" in err and "450 images" not in err


def test_an_image_that_does_not_decode_is_named_or_left_out(command: Command, tmp_path: Path) -> None:
    few = write(tmp_path / "few", "val", 30)
    (few / "broken.png").write_bytes(b"no image")
    told = ("fid", str(few), "digits@test", *FAST, "--measures", "fd", "--json")
    refused(command(*told), "broken.png")
    assert scores(command(*told, "--on-error", "skip"))["fd_pixels_8"]["n"] == 30


def test_the_report_shows_the_distances(command: Command, tmp_path: Path) -> None:
    run, page = tmp_path / "distance", tmp_path / "page"
    found = scores(command("fid", "digits@val", "digits@test", *FAST, "--out", str(run), "--json"))
    assert command("report", str(run), "--out", str(page))[0] == 0
    text = (page / "index.html").read_text()
    for name, score in found.items():
        assert name in text and f"<strong>{score['value']:.4g}</strong>" in text
    assert "digits@val (269)" in text and "digits@test (450)" in text and "Accuracy, %" not in text
    records = files.read_lines(run / "results.jsonl")
    del records[0]["about"]["a"]
    (run / "results.jsonl").write_text("\n".join(json.dumps(r) for r in records) + "\n")
    refused(command("report", str(run), "--out", str(page)), "results.jsonl is damaged")

"""All of it, end to end, smaller than the demo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twofold import files
from twofold.workflows import demo


@pytest.mark.slow
def test_demo_from_pretraining_to_the_page(tmp_path: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    small = ("--images", 640, "--num", 12, "--seeds", 1, "--steps", 5)
    code, out, err = command("demo", "--out", tmp_path / "demo", *small, "--json")
    assert code == 0, err
    facts = json.loads(out)
    page = Path(facts["page"]).read_text()
    for heading in ("Samples", "Training", "Selection", "Scores", "Commands"):
        assert f">{heading}</h2>" in page
    rows = {(s["about"]["row"], s["about"]["shots"]) for s in facts["scores"]}
    assert {("pixels", 0), ("untrained", 0), ("pixels", 10), ("untrained", 10)} < rows
    assert all(s["split"] == "test" and s["low"] <= s["value"] <= s["high"] for s in facts["scores"])
    pixels = next(s for s in facts["scores"] if s["about"]["row"] == "pixels" and s["about"]["head"] == "knn")
    assert pixels["value"] > 0.95
    assert (tmp_path / "demo" / "pretrain" / "model_index.json").exists()

    # The result opens in diffusers.
    from diffusers import DDPMPipeline

    pipeline = DDPMPipeline.from_pretrained(tmp_path / "demo" / "pretrain")
    assert len(pipeline(batch_size=2, num_inference_steps=2).images) == 2

    # The same command again does nothing anew and tells the same.
    code, again, err = command("demo", "--out", tmp_path / "demo", *small, "--json")
    assert code == 0
    assert json.loads(again)["scores"] == facts["scores"]


@pytest.mark.parametrize("folder", ["report", "select-shots", "probe"])
def test_a_folder_that_cannot_be_used_is_refused_before_training(
    folder: str, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "thesis.tex").write_text("x")
    code, out, err = command("demo", "--out", tmp_path, "--images", 64, "--num", 2)
    assert (code, out) == (2, "") and err.count("\n") == 1 and f"{tmp_path / folder} holds files" in err
    assert [path.name for path in tmp_path.rglob("*")] == [folder, "thesis.tex"]


@pytest.mark.parametrize(
    ("setting", "says"), [(("--steps", 1001), "at most 1000"), (("--device", "meta"), "No device")]
)
def test_a_setting_that_cannot_be_used_is_refused_before_training(
    setting: tuple[str, object], says: str, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = command("demo", "--out", tmp_path / "demo", "--images", 64, "--num", 2, *setting)
    assert (code, out) == (2, "") and err.count("\n") == 1 and says in err
    assert not (tmp_path / "demo").exists()


def test_what_a_killed_writer_leaves_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for index in range(3):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / f"{index:06d}.png")
    (tmp_path / "images" / f"{files.UNFINISHED}x.png").write_bytes(b"half")
    judged = demo._judge_samples(tmp_path, 3)
    assert {score.n for score in judged if score.split == "generated"} == {3}

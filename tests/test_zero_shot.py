"""The diffusion classifier: the class that explains an image's noise best."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_models
from twofold import noise
from twofold.backbones import base
from twofold.backbones.base import DiffusionBackbone
from twofold.steps import _trials, _zero_shot
from twofold.steps._zero_shot import Stages

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A U-Net that can be told ten classes."""
    return f"diffusers:{tiny_models.pipeline('DDPMPipeline', tmp_path_factory.getbasetemp() / 'models' / 'grey')}"


@pytest.fixture(scope="module")
def backbone(model: str) -> DiffusionBackbone:
    found = base.load(model, device="cpu", precision="fp32")
    assert isinstance(found, DiffusionBackbone)
    return found


def knowing(backbone: DiffusionBackbone, monkeypatch: pytest.MonkeyPatch, pull: float = 0.5) -> torch.Tensor:
    """Ten images, and a network that denoises each class's image a little better when it is told its class."""
    x = torch.from_numpy(noise.normal(5, range(10), backbone.sample_shape))

    def denoise(x_t: torch.Tensor, t: float, labels: torch.Tensor) -> torch.Tensor:
        seen.append(len(x_t))
        blurred = x_t / backbone.coefficients(torch.tensor([t]))[0]
        return blurred + pull * (x[labels] - blurred)

    seen: list[int] = []
    monkeypatch.setattr(backbone, "denoise", denoise)
    monkeypatch.setattr(backbone, "seen", seen, raising=False)
    return x


def stages(backbone: DiffusionBackbone, noises: int, count: int) -> Stages:
    class Place:
        t = sigma = None

    return _zero_shot._stages(Place(), backbone, noises, count)  # type: ignore[arg-type]


def test_the_right_class_is_found_in_stages(backbone: DiffusionBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    x, chosen = knowing(backbone, monkeypatch), stages(backbone, 8, 3)
    beyond, last = _zero_shot.explain(backbone, x, np.arange(10), chosen, 0, 64)
    told = _zero_shot.answer(beyond, last, np.arange(10))
    assert told["predicted"].tolist() == list(range(10)) and not told["rank"].any()
    assert chosen.plan == ((2, 5), (4, 3), (8, 1))
    assert sum(backbone.seen) == 10 * chosen.passes(10) == 10 * (2 * 10 + 2 * 5 + 4 * 3)  # type: ignore[attr-defined]
    assert max(backbone.seen) <= 64  # type: ignore[attr-defined]
    assert [(last == stage).sum() for stage in range(3)] == [50, 20, 30]


def test_all_classes_see_the_same_noise(backbone: DiffusionBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that does not listen to the class explains the noise with all of them equally."""
    x = knowing(backbone, monkeypatch, pull=0.0)
    beyond, _ = _zero_shot.explain(backbone, x, np.arange(10), stages(backbone, 4, 1), 0, 7)
    assert np.abs(beyond).max() < 1e-9


def test_answers_do_not_depend_on_the_batch_or_on_other_images(backbone: DiffusionBackbone) -> None:
    x, chosen = torch.from_numpy(noise.normal(5, range(6), backbone.sample_shape)), stages(backbone, 4, 2)
    whole, _ = _zero_shot.explain(backbone, x, np.arange(6), chosen, 3, 64)
    part, _ = _zero_shot.explain(backbone, x[2:5], np.arange(2, 5), chosen, 3, 7)
    np.testing.assert_allclose(part, whole[2:5], rtol=1e-3, atol=1e-3)
    other, _ = _zero_shot.explain(backbone, x, np.arange(6), chosen, 4, 64)
    assert np.abs(other - whole).max() > 1e-2


def test_ranks_count_classes_that_went_further_first() -> None:
    beyond = np.array([[0.0, 3.0, 9.0, 1.0]])
    last = np.array([[2, 2, 1, 0]])
    ranks = [int(_zero_shot.answer(beyond, last, np.array([k]))["rank"][0]) for k in range(4)]
    assert ranks == [0, 1, 2, 3]


def test_noise_levels_lie_evenly_however_many_are_seen(backbone: DiffusionBackbone) -> None:
    chosen = stages(backbone, 16, 3)
    places = [np.log(backbone.sigma(t) or 0) for t in chosen.steps]
    low, high = np.log(_zero_shot.SIGMAS)
    assert len(set(places)) == 16 and min(places) > low - 0.1 and max(places) < high + 0.1
    for first in (4, 8, 16):
        bins = np.floor((np.array(places[:first]) - low) / (high - low) * first * 0.999)
        assert len(set(bins.tolist())) >= first - 1


def probe(command: Command, model: str, out: Path, *more: object) -> tuple[int, dict[str, Any], str]:
    fixed = ["--data", "digits", "--head", "diffusion", "--noises", 2, "--stages", 2, "--quiet", "--json"]
    code, told, err = command("probe", "--model", model, "--out", out, *fixed, *more)
    return code, json.loads(told) if told else {}, err


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The smallest network for digits that can be told ten classes."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    folder = tmp_path_factory.mktemp("grey")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1,
            norm_num_groups=4, num_class_embeds=10, down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
        )  # fmt: skip
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)
    return f"diffusers:{folder}"


def test_scores_are_as_those_of_heads_and_a_killed_run_goes_on(
    grey: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_zero_shot, "CHUNK", 150)
    code, whole, err = probe(command, grey, tmp_path / "whole", "--seeds", 2, "--controls", "none")
    assert code == 0, err
    (score,) = whole["scores"]
    assert score["n"] == 450 and score["seeds"] == [0, 1] and score["low"] <= score["value"] <= score["high"]
    assert score["about"]["noises"] == 2 and score["about"]["passes"] == 10 + 4
    assert {"top5", "mean_per_class", "calibration_error"} <= {m["name"] for m in whole["measures"]}

    kept = _zero_shot.explain
    calls: list[int] = []

    def dying(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return kept(*arguments)

    monkeypatch.setattr(_zero_shot, "explain", dying)
    cut = tmp_path / "cut"
    assert probe(command, grey, cut, "--seeds", 2, "--controls", "none")[0] == 130
    assert len(list(cut.rglob("answers/**/*.npz"))) == 4
    code, again, err = probe(command, grey, cut, "--seeds", 2, "--controls", "none")
    assert code == 0 and len(calls) == 5 + 2, err
    one, other = (_trials.load(next((tmp_path / run / "predictions").glob("*.npz"))) for run in ("whole", "cut"))
    assert np.array_equal(one.predicted, other.predicted) and np.array_equal(one.confidence, other.confidence)
    assert again["scores"][0]["value"] == score["value"] and not (cut / "answers").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--block", "mid"], "--block means nothing"),
        (["--shots", 5], "--shots means nothing"),
        (["--label", 0], "--label means nothing"),
        (["--head", "diffusion,ridge"], "run of its own"),
        (["--t", 5000], "not a noise step"),
        (["--noises", 0], "at least 1"),
    ],
)
def test_what_means_nothing_is_one_line(
    grey: str, tmp_path: Path, command: Command, more: list[object], told: str
) -> None:
    code, _, err = probe(command, grey, tmp_path / "run", *more)
    assert code == 2 and told in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_models_that_cannot_be_told_these_classes_are_one_line(
    tiny_run: Path, grey: str, tmp_path: Path, command: Command
) -> None:
    for model, told in ((str(tiny_run), "cannot be told a class"), ("pixels:8", "cannot be told a class")):
        code, _, err = probe(command, model, tmp_path / "run")
        assert code == 2 and told in err and err.count("\n") == 1
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(8):
            Image.new("L", (8, 8), 10 * k).save(tmp_path / "data" / name / f"{k}.png")
    code, _, err = probe(command, grey, tmp_path / "run", "--data", f"folder:{tmp_path / 'data'}")
    assert code == 2 and "knows 10 classes" in err


def test_the_same_classes_in_another_order_are_one_line(grey: str, tmp_path: Path, command: Command) -> None:
    """Class k of the data would be taken for another class of the model."""
    model = tmp_path / "model"
    shutil.copytree(grey.removeprefix("diffusers:"), model)
    (model / "finished.json").write_text(json.dumps({"classes": list("0123456798")}))
    code, _, err = probe(command, f"diffusers:{model}", tmp_path / "run")
    assert code == 2 and err.count("\n") == 1 and "class 8 is '9'" in err, err
    assert not (tmp_path / "run").exists()

"""Which U-Net is trained: every preset fits its size, any file of diffusers does, and what does not fit is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from twofold.backbones import base
from twofold.steps import _architecture
from twofold.steps._architecture import PRESETS, Wanted

Command = Callable[..., tuple[int, str, str]]
TRAIN = ("pretrain", "--data", "digits", "--images", 64, "--batch", 32, "--warmup", 0, "--probe-every", 0, "--quiet")
SMALL: dict[str, Any] = {
    "_class_name": "UNet2DModel", "in_channels": 1, "sample_size": 8, "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4,
}  # fmt: skip


@pytest.mark.parametrize("side", PRESETS)
@pytest.mark.parametrize("name", ["plain", "adm"])
def test_every_size_has_a_network_that_fits(name: str, side: int) -> None:
    _architecture.check(Wanted(side, 3, name, outputs=2, classes=10))


def test_an_adm_like_network_trains_and_can_be_read(tmp_path: Path, command: Command) -> None:
    code, _, err = command(*TRAIN, "--out", tmp_path / "out", "--unet", "adm", "--widths", "8,16", "--layers", 1)
    assert code == 0, err
    config = json.loads((tmp_path / "out" / "unet" / "config.json").read_text())
    assert (config["resnet_time_scale_shift"], config["downsample_type"]) == ("scale_shift", "resnet")
    assert "mid" in [block.name for block in base.load(str(tmp_path / "out"), device="cpu").blocks]


def test_a_file_is_trained_as_it_says_and_belongs_to_the_run(tmp_path: Path, command: Command) -> None:
    file, out = tmp_path / "unet.json", tmp_path / "out"
    file.write_text(json.dumps(SMALL))
    code, _, err = command(*TRAIN, "--out", out, "--unet", file, "--labels", "--learned-variance")
    assert code == 0, err
    config = json.loads((out / "unet" / "config.json").read_text())
    assert config["block_out_channels"] == [8, 8] and config["num_class_embeds"] == 10 and config["out_channels"] == 2
    file.write_text(json.dumps({**SMALL, "layers_per_block": 2}))
    code, _, err = command(*TRAIN, "--out", out, "--unet", file, "--labels", "--learned-variance")
    assert code == 2 and err.count("\n") == 1 and "unet is" in err, err


def test_a_network_without_a_middle_is_probed_before_its_decoder(tmp_path: Path, command: Command) -> None:
    file, out = tmp_path / "unet.json", tmp_path / "out"
    file.write_text(json.dumps({**SMALL, "mid_block_type": None}))
    code, _, err = command(*TRAIN, "--out", out, "--unet", file, "--probe-every", 1, "--track", 1)
    assert code == 0, err
    assert "mid" not in [block.name for block in base.load(str(out), device="cpu").blocks]
    assert (out / "best-probe").is_dir()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"_class_name": "AutoencoderKL"}, "is a AutoencoderKL; a UNet2DModel"),
        ({"in_channels": 3}, "in_channels 3, the images and settings ask for 1"),
        ({"sample_size": 32}, "sample_size 32"),
        ({"num_class_embeds": 7}, "num_class_embeds 7"),
        ({"block_out_channel": [8]}, "'block_out_channels'"),
        ({"norm_num_groups": 3}, "does not fit images of 8 pixels and 1 channel"),
        ({"down_block_types": ["DownBlock2D"]}, "does not fit"),
        ({"down_block_types": ["NoBlock", "DownBlock2D"]}, "does not fit"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type"),
        (None, "not JSON"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    changed: dict[str, Any] | None, says: str, tmp_path: Path, command: Command
) -> None:
    file = tmp_path / "unet.json"
    file.write_text("{" if changed is None else json.dumps({**SMALL, **changed}))
    code, out, err = command(*TRAIN, "--out", tmp_path / "out", "--unet", file)
    assert (code, out) == (2, "") and err.count("\n") == 1 and says in err, err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--unet", "admm"), "'adm'"),
        (("--unet", "none.json"), "cannot be read"),
        (("--unet", "adm", "--size", 16), "8, 28, 32, 64, 128, 256"),
        (("--unet", "x.json", "--layers", 2), "Leave them out"),
        (("--widths", "8,8,8,8,8"), "cannot be halved"),
    ],
)
def test_networks_that_do_not_exist_are_one_line(
    arguments: tuple[object, ...], says: str, tmp_path: Path, command: Command
) -> None:
    code, _, err = command(*TRAIN, "--out", tmp_path / "out", *arguments)
    assert code == 2 and err.count("\n") == 1 and says in err, err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("side", "classes", "parameters"),
    [(64, 1000, 295.9e6), (128, 1000, 421.5e6), (256, 1000, 553.8e6), (256, 0, 552_814_086)],
)
def test_adm_has_the_published_size(side: int, classes: int, parameters: float) -> None:
    """296, 422 and 554 million with classes (Dhariwal and Nichol 2021, table 4); without, that of the checkpoint."""
    with torch.device("meta"):
        network = _architecture.network(Wanted(side, 3, "adm", outputs=2, classes=classes))
    counted = sum(p.numel() for p in network.parameters())
    assert counted == parameters if classes == 0 else counted == pytest.approx(parameters, abs=0.05e6)

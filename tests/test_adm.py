"""guided-diffusion's networks after renaming: every block and the output against the reference and against formulas."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import twofold
from adm_reference import Flags, random_state, run
from tiny_models import adm
from twofold.backbones._network import DiffusionNetwork
from twofold.errors import BadModel, BadSetting

FIXTURES = {
    "adm_37blocks": Flags(image_size=32, num_res_blocks=2, channel_mult=(1, 1, 1, 1, 2, 2), attention_levels=(3, 4, 5)),
    "adm_classcond": Flags(image_size=16, channel_mult=(1, 2, 2), attention_levels=(1, 2), class_cond=True),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "as published": {},
    "class-conditional": {"class_cond": True},
    "fixed variance": {"learn_sigma": False},
    "no scale": {"use_scale_shift_norm": False},
    "resampled by convolutions": {"resblock_updown": False},
    "convolutions behind attention": {"resblock_updown": False, "attention_levels": (0, 1)},
    "heads by count": {"num_head_channels": -1, "num_heads": 4, "channel_mult": (1, 2, 3), "attention_levels": (1, 2)},
    "newer order of q, k, v": {"use_new_attention_order": True},
    "narrow first level, as at 512 pixels": {"num_channels": 64, "channel_mult": (0.5, 1), "num_res_blocks": 2},
    "one level": {"channel_mult": (1,), "attention_levels": ()},
    "three layers, attention everywhere": {"num_res_blocks": 3, "attention_levels": (0, 1)},
}


def load(path: Path, precision: str = "fp32") -> DiffusionNetwork:
    backbone = twofold.load_backbone(f"adm:{path}", device="cpu", precision=precision)
    assert isinstance(backbone, DiffusionNetwork)
    return backbone


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def outputs(backbone: DiffusionNetwork, x: Tensor, t: Tensor, y: Tensor | None) -> tuple[list[Tensor], Tensor]:
    blocks = backbone.features(x, t, [b.number for b in backbone.blocks], labels=y)
    with torch.no_grad():
        return list(blocks.values()), backbone._predict(x, t, y)


@pytest.mark.shared
@pytest.mark.parametrize("name", FIXTURES)
def test_every_block_is_that_of_the_reference_implementation(shared: Path, name: str) -> None:
    wanted = np.load(shared / "fixtures" / f"{name}.npz")
    x, t = torch.from_numpy(wanted["x"]), torch.from_numpy(wanted["t"])
    y = torch.from_numpy(wanted["y"]) if "y" in wanted else None
    path = shared / "fixtures" / f"{name}.pt"
    blocks, out = outputs(load(path), x, t, y)
    assert len(blocks) == sum(key.startswith("b") for key in wanted)
    for number, found in enumerate(blocks, start=1):
        assert relative(found, torch.from_numpy(wanted[f"b{number:02d}"])) < 1e-4, number
    assert relative(out, torch.from_numpy(wanted["out"])) < 1e-4
    # The formulas that stand in for the reference elsewhere agree with it as well.
    state = torch.load(path, weights_only=True)
    found_blocks, found_out = run(state, FIXTURES[name], x, t, y)
    assert relative(found_out, torch.from_numpy(wanted["out"])) < 1e-4
    assert all(relative(f, torch.from_numpy(wanted[f"b{k:02d}"])) < 1e-4 for k, f in enumerate(found_blocks, 1))


@pytest.mark.shared
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near_the_reference(shared: Path, precision: str) -> None:
    wanted = np.load(shared / "fixtures" / "adm_classcond.npz")
    x, t, y = (torch.from_numpy(wanted[name]) for name in "xty")
    blocks, out = outputs(load(shared / "fixtures" / "adm_classcond.pt", precision), x, t, y)
    assert max(relative(b, torch.from_numpy(wanted[f"b{k:02d}"])) for k, b in enumerate(blocks, 1)) < 3e-2
    assert relative(out, torch.from_numpy(wanted["out"])) < 3e-2


@pytest.mark.parametrize("changed", VARIANTS.values(), ids=VARIANTS)
def test_every_kind_of_network_is_read_exactly(tmp_path: Path, changed: dict[str, Any]) -> None:
    flags = Flags(**changed)
    path = adm(tmp_path, **changed)
    generator = torch.Generator().manual_seed(3)
    x, t = torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([7, 640])
    y = torch.tensor([9, 2]) if flags.class_cond else None
    blocks, out = outputs(load(path), x, t, y)
    wanted, wanted_out = run(torch.load(path, weights_only=True), flags, x, t, y)
    assert len(blocks) == len(wanted)
    assert max(relative(*pair) for pair in zip(blocks, wanted, strict=True)) < 1e-5
    assert relative(out, wanted_out) < 1e-5


def test_without_a_label_the_class_embedding_is_zero(tmp_path: Path) -> None:
    path = adm(tmp_path, class_cond=True)
    state = torch.load(path, weights_only=True)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([50, 50])
    wanted, _ = run(state, Flags(class_cond=True), x, t, None)
    backbone = load(path)
    assert backbone.classes == 10
    found = backbone.features(x, 50, [5])[5]
    assert relative(found, wanted[4]) < 1e-5
    assert relative(backbone.features(x, 50, [5], labels=torch.tensor([1, 1]))[5], wanted[4]) > 1e-3
    with pytest.raises(BadSetting, match="0 to 9"):
        backbone.features(x, 50, [5], labels=torch.tensor([1, 10]))
    with pytest.raises(BadSetting, match="knows no classes"):
        load(adm(tmp_path, "plain")).features(x, 50, [5], labels=torch.tensor([1, 1]))


def test_schedules_are_those_of_guided_diffusion(tmp_path: Path) -> None:
    linear = load(adm(tmp_path))
    assert linear.sigma(90) == pytest.approx(0.308, abs=2e-3)  # PAPER.md 1.2: .295 / .956
    assert linear.sigma(500) == pytest.approx(0.960 / 0.279, rel=5e-3)
    cosine = load(adm(tmp_path, "cosine", noise_schedule="cosine", diffusion_steps=4000))
    assert cosine.process.allowed == "whole numbers 0 to 3999"
    halfway = np.tan((0.5 + 0.008) / 1.008 * np.pi / 2)
    assert cosine.sigma(1999) == pytest.approx(halfway, rel=2e-3)


def test_adm_256_has_the_papers_blocks_and_costs() -> None:
    """PAPER.md 1.3: channels, sizes and the share of all multiplications up to b, checked on shapes alone."""
    from diffusers import DDPMScheduler, UNet2DModel

    from twofold.backbones import _adm, _folders, _unet
    from twofold.backbones.base import Placement

    shape = _adm.Shape((256, 256, 512, 512, 1024, 1024), 2, (False,) * 3 + (True,) * 3, 256, 3, 6, 0, True, True)
    config = _adm.config(shape, _adm.Heads(64, None, False), {"image_size": 256})
    unet = _folders.shapes(UNet2DModel, config, torch.float32)
    assert sum(p.numel() for p in unet.parameters()) == 552_814_086
    backbone = _unet.backbone(unet, DDPMScheduler(), Placement(torch.device("meta"), torch.float32), name="adm")
    blocks = {b.number: b for b in backbone.blocks}
    assert len(blocks) == 37
    for number, channels, size, percent in (
        (1, 256, 256, 0.0), (6, 256, 128, 19.0), (9, 512, 64, 22.5), (15, 1024, 16, 25.3), (19, 1024, 8, 25.9),
        (24, 1024, 16, 28.5), (30, 512, 64, 41.1), (33, 256, 128, 56.9), (37, 256, 256, 99.9),
    ):  # fmt: skip
        assert (blocks[number].channels, blocks[number].size) == (channels, size)
        assert 100 * blocks[number].share == pytest.approx(percent, abs=0.1), number
    assert backbone.cost(24).operations / 2 == pytest.approx(319.6e9, rel=2e-3)  # PAPER.md 3.12


def test_converting_gives_the_same_network_as_a_diffusers_folder(tmp_path: Path, command: Any) -> None:
    for name, flags in {"usual": {}, "odd": VARIANTS["heads by count"], "narrow": VARIANTS[
        "narrow first level, as at 512 pixels"], "classes": {"class_cond": True}}.items():  # fmt: skip
        path, out = adm(tmp_path, name, **flags), tmp_path / f"{name}-folder"
        assert command("convert", f"adm:{path}", out, "--quiet")[0] == 0
        here, there = load(path), twofold.load_backbone(f"diffusers:{out}", device="cpu", precision="fp32")
        x = torch.randn(2, 3, 16, 16)
        last = len(here.blocks)
        assert torch.equal(here.features(x, 40, [last])[last], there.features(x, 40, [last])[last])
        assert here.blocks == there.blocks
        done = command("convert", f"adm:{path}", out)
        assert done[0] == 0 and "is done already" in done[1]


class Attack:
    """A pickle that would run code where it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def test_bad_files_are_one_clear_line(tmp_path: Path, command: Any) -> None:
    good = adm(tmp_path)
    state = torch.load(good, weights_only=True)

    def refused(path: Path, *expected: str) -> None:
        with pytest.raises(BadModel) as error:
            twofold.load_backbone(f"adm:{path}", device="cpu")
        assert all(text in str(error.value) for text in expected), error.value
        code, stdout, stderr = command("blocks", f"adm:{path}")
        assert code == 2 and stdout == "" and len(stderr.strip().splitlines()) == 1

    def variant(name: str, content: dict[str, Any], flags: dict[str, Any] | None = None) -> Path:
        path = tmp_path / f"{name}.pt"
        torch.save(content, path)
        path.with_suffix(".json").write_text(json.dumps(Flags().written() if flags is None else flags))
        return path

    refused(tmp_path / "absent.pt", "does not exist")
    refused(tmp_path, "is a folder")
    cut = tmp_path / "cut.pt"
    cut.write_bytes(good.read_bytes()[:5000])
    refused(cut, "damaged")
    text = tmp_path / "text.pt"
    text.write_text("not a network")
    refused(text, "refused")
    trace = tmp_path / "it ran"
    attack = tmp_path / "attack.pt"
    torch.save({"x": Attack(trace)}, attack)
    refused(attack, "could run code")
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps(Attack(trace)))
    refused(plain, "could run code")
    assert not trace.exists()
    refused(variant("other", {"layer1.0.conv1.weight": torch.zeros(1)}), "another network", "layer1.0.conv1.weight")
    less = {n: w for n, w in state.items() if n != "middle_block.1.qkv.bias"}
    refused(variant("less", less), "lacks middle_block.1.qkv.bias")
    refused(variant("more", {**state, "classifier.bias": torch.zeros(1)}), "unexpected classifier.bias")
    refused(variant("shape", {**state, "out.0.bias": torch.zeros(7)}), "out.0.bias", "(7,)")
    refused(variant("numbers", {"epoch": 3}), "no state dict")
    usual = Flags().written()
    for flag in ("image_size", "num_head_channels"):
        refused(
            variant("open", state, {n: v for n, v in usual.items() if n not in (flag, "num_heads")}), flag, "open.json"
        )
    refused(variant("wrong", state, {**usual, "num_res_blocks": 3}), "num_res_blocks is 1", "flags say 3")
    refused(variant("odd", state, {**usual, "image_size": 15}), "cannot be halved")
    refused(variant("width", state, {**usual, "num_head_channels": 48}), "cannot be cut")
    refused(variant("kind", state, {**usual, "noise_schedule": "square"}), "linear or cosine")
    (tmp_path / "adm.json").write_text("{")
    refused(good, "adm.json")


def test_files_of_torchs_oldest_format_are_read(tmp_path: Path, command: Any) -> None:
    path = adm(tmp_path)
    state, before = torch.load(path, weights_only=True), command("blocks", f"adm:{path}")
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert command("blocks", f"adm:{path}") == before and before[0] == 0
    x = torch.randn(1, 3, 16, 16)
    wanted, _ = run(state, Flags(), x, torch.tensor([30]))
    assert relative(load(path).features(x, 30, [3])[3], wanted[2]) < 1e-5


def test_published_files_need_no_flags(tmp_path: Path) -> None:
    """The name of a published file stands for the flags that its shapes leave open."""
    from twofold.backbones.adm import PUBLISHED

    named = adm(tmp_path, "256x256_diffusion_uncond", channel_mult=(1, 1))
    named.with_suffix(".json").unlink()
    with pytest.raises(BadModel, match="cannot be cut"):  # its heads are 64 wide, this tiny network's levels are not
        load(named)
    wide = tmp_path / "lsun_cat.pt"
    torch.save(random_state(Flags(num_channels=64, num_head_channels=64)), wide)
    assert load(wide).image_size == 256
    assert all("image_size" in flags for flags in PUBLISHED.values())

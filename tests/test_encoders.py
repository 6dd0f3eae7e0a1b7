"""Encoders of other libraries: whose file it is, what stands before its names, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

import twofold
from twofold.errors import BadModel, UnknownName

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def trunk() -> State:
    """Weights of a ResNet without its classifier."""
    torch.manual_seed(3)
    return {name: value for name, value in resnet18().state_dict().items() if not name.startswith("fc.")}


def named(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


# How checkpoints of contrastive methods wrap the same network.
STYLES: dict[str, Callable[[State], Any]] = {
    "torchvision, SimCLR converted": lambda s: s,
    "SwAV": lambda s: {**named("module.", s), "module.prototypes.weight": torch.zeros(3, 3)},
    "MoCo": lambda s: {
        "epoch": 200,
        "state_dict": {
            **named("module.encoder_q.", s),
            **named("module.encoder_k.", {n: w * 0 for n, w in s.items()}),
            "module.queue": torch.zeros(2),
        },
    },
    "VISSL": lambda s: {
        "classy_state_dict": {"base_model": {"model": {"trunk": named("_feature_blocks.", s), "heads": {}}}}
    },
    "Lightning": lambda s: {"state_dict": {**named("backbone.", s), "projector.0.weight": torch.zeros(2, 2)}},
}


@pytest.mark.parametrize("style", STYLES)
def test_checkpoints_are_read_whatever_stands_before_their_names(style: str, trunk: State, tmp_path: Path) -> None:
    torch.save(STYLES[style](trunk), tmp_path / "weights.pth")
    backbone = twofold.load_backbone(f"torchvision:resnet18@{tmp_path / 'weights.pth'}", device="cpu", precision="fp32")
    plain = resnet18().eval()
    plain.load_state_dict(trunk, strict=False)
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    x = backbone.preprocess(images)
    with torch.no_grad():
        stem = plain.maxpool(plain.relu(plain.bn1(plain.conv1(x))))
        wanted = plain.layer4(plain.layer3(plain.layer2(plain.layer1(stem))))
    torch.testing.assert_close(backbone.features(x, None, ["layer4.1"])["layer4.1"], wanted, rtol=1e-4, atol=1e-4)


def test_timm_reads_the_same_weights_as_torchvision(trunk: State, tmp_path: Path) -> None:
    save_file({n: w.contiguous() for n, w in trunk.items()}, tmp_path / "weights.safetensors")
    path = tmp_path / "weights.safetensors"
    here = twofold.load_backbone(f"timm:resnet18@{path}", device="cpu", precision="fp32")
    there = twofold.load_backbone(f"torchvision:resnet18@{path}", device="cpu", precision="fp32")
    x = torch.randn(2, 3, 224, 224)
    found, wanted = here.features(x, None, ["layer3"])["layer3"], there.features(x, None, ["layer3.1"])["layer3.1"]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert here.identity != there.identity


def test_other_files_are_one_clear_line(trunk: State, tmp_path: Path, command: Any) -> None:
    def refused(model: str, *says: str) -> None:
        with pytest.raises((BadModel, UnknownName)) as error:
            twofold.load_backbone(model, device="cpu")
        assert all(text in str(error.value) for text in says), error.value
        assert "\n" not in str(error.value)

    path = tmp_path / "weights.pth"
    torch.save({n: w for n, w in trunk.items() if n != "layer2.0.conv1.weight"}, path)
    for scheme in ("timm", "torchvision"):
        refused(f"{scheme}:resnet18@{path}", "another network", "lacks layer2.0.conv1.weight")
        refused(f"{scheme}:resnet18@{tmp_path / 'absent.pth'}", "does not exist")
        refused(f"{scheme}:resnet18@", "NAME@FILE")
        refused(f"{scheme}:resnt18", "Did you mean", "'resnet18'")
    torch.save({**trunk, "conv1.weight": torch.zeros(64, 3, 3, 3)}, path)
    refused(f"torchvision:resnet18@{path}", "conv1.weight", "(64, 3, 3, 3)")
    path.write_text("text")
    refused(f"torchvision:resnet18@{path}", "Fetch it again")
    torch.save({"epoch": 3}, path)
    refused(f"torchvision:resnet18@{path}", "holds no tensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    refused(f"torchvision:resnet18@{tmp_path / 'cut.safetensors'}", "damaged")
    refused("torchvision:vit_b_16", "timm:NAME")


def test_without_a_network_published_weights_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("the network is unreachable\nsecond line")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline, raising=False)
    with pytest.raises(BadModel, match=r"torchvision:resnet18@FILE") as error:
        twofold.load_backbone("torchvision:resnet18", device="cpu")
    assert "\n" not in str(error.value)
    with pytest.raises(BadModel, match=r"timm:test_vit@FILE"):  # the tests run with the hub switched off
        twofold.load_backbone("timm:test_vit", device="cpu")


def test_a_hub_id_without_a_network_says_how_to_give_a_folder(command: Any) -> None:
    code, out, err = command("blocks", "diffusers:someone/some-model")
    assert code == 2 and out == "" and len(err.strip().splitlines()) == 1
    assert "diffusers:DIR" in err and "hf download someone/some-model" in err


def test_blocks_need_no_weights(tmp_path: Path, command: Any) -> None:
    """Settings are enough: of timm and torchvision by name, of a pipeline folder whose weights are not there."""
    import tiny_models

    for model in ("timm:resnet50", "torchvision:resnet50"):
        code, out, err = command("blocks", model)
        assert code == 0 and "layer4" in out, err
    latent = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline")
    for kind in ("DiTPipeline", *latent, "FluxPipeline"):
        folder = tiny_models.pipeline(kind, tmp_path / kind)
        before = command("blocks", f"diffusers:{folder}")
        for weights in folder.rglob("*.safetensors"):
            weights.unlink()
        assert command("blocks", f"diffusers:{folder}") == before
        assert before[0] == 0


@pytest.mark.parametrize("model", ["torchvision:resnet18?untrained", "timm:test_resnet?untrained"])
def test_half_precision_is_near_single(model: str) -> None:
    """Batch norms among them."""
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    single, half = (twofold.load_backbone(model, device="cpu", precision=p) for p in ("fp32", "bf16"))
    wanted, found = (b.features(x, None, [3])[3].float() for b in (single, half))
    assert (found - wanted).abs().mean() < 0.02 * wanted.abs().mean()

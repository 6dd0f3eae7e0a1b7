"""The network of the FID: equal to torch-fidelity's own extractor, and what is said where its weights are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

import tiny_models
import twofold
from twofold.backbones import inception
from twofold.errors import BadModel
from twofold.pooling import pool

# Of torch-fidelity's layers, the block that each is read behind.
LAYERS = {"64": "MaxPool_1", "192": "MaxPool_2", "768": "Mixed_6e", "2048": "Mixed_7c"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.inception(tmp_path_factory.getbasetemp() / "models")


def theirs(weights: Path, images: Tensor | Sequence[Tensor]) -> dict[str, Tensor]:
    """Features [N, D] of each layer by torch-fidelity itself, an image at a time."""
    extractor = FeatureExtractorInceptionV3("inception", list(LAYERS), feature_extractor_weights_path=str(weights))
    found = [extractor(image[None]) for image in images]
    return {layer: torch.cat([one[k] for one in found]) for k, layer in enumerate(LAYERS)}


def test_features_are_those_of_torch_fidelity(weights: Path) -> None:
    chance = torch.Generator().manual_seed(0)
    sizes = [(32, 32), (40, 30), (350, 301)]  # enlarged, stretched, made smaller
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=chance) for size in sizes]
    backbone = twofold.load_backbone(f"inception:{weights}", device="cpu", precision="fp32")
    maps = backbone.features(backbone.preprocess(images), None, list(LAYERS.values()))
    for layer, expected in theirs(weights, images).items():
        assert expected.std() > 0.01, layer
        torch.testing.assert_close(pool(maps[LAYERS[layer]], 1), expected, rtol=1e-4, atol=1e-5)
    alike = torch.stack([images[0], images[0].flip(1)])
    torch.testing.assert_close(backbone.preprocess(alike), backbone.preprocess(list(alike)), rtol=0, atol=0)


def test_only_the_published_file_is_that_of_the_fid(weights: Path) -> None:
    backbone = twofold.load_backbone(f"inception:{weights}", device="cpu")
    assert backbone.identity.startswith("inception-") and not inception.is_published(backbone.identity)
    assert inception.is_published("inception-6726825d01234567")
    control = twofold.load_backbone("inception?untrained", device="cpu")
    assert control.identity != backbone.identity and not inception.is_published(control.identity)


def test_missing_weights_are_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(BadModel, match=r"no network.*6726825d\.pth into .*checkpoints.*--weights FILE.*--features"):
        twofold.load_backbone("inception", device="cpu")
    kept = tmp_path / "hub" / "checkpoints" / inception.PUBLISHED
    kept.write_bytes(weights.read_bytes())
    found = twofold.load_backbone("inception", device="cpu")  # where torch-fidelity keeps them
    assert found.identity == twofold.load_backbone(f"inception:{weights}", device="cpu").identity
    with pytest.raises(BadModel, match="does not exist"):
        twofold.load_backbone(f"inception:{tmp_path / 'none.pth'}", device="cpu")
    assert len(twofold.load_backbone("inception?untrained", device="cpu").blocks) == 18


def test_what_could_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state": object}, tmp_path / "evil.pth")
    with pytest.raises(BadModel, match="could run code"):
        twofold.load_backbone(f"inception:{tmp_path / 'evil.pth'}", device="cpu")
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(BadModel, match="another network"):
        twofold.load_backbone(f"inception:{tmp_path / 'other.pth'}", device="cpu")

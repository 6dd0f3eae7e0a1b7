"""Encoders of torchvision, with checkpoints of SimCLR, SwAV, MoCo, VISSL ... whatever stands before their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from twofold.backbones import _encoder, _folders
from twofold.backbones._encoder import Preparation
from twofold.backbones._taps import Place
from twofold.backbones.base import Placement
from twofold.errors import BadModel, unknown
from twofold.records import ModelName

SCHEMES = ("torchvision",)
FILE = "a .safetensors file or a state dict of torch, torchvision:NAME@FILE"

# Classifiers: never read, and left out of many checkpoints.
CLASSIFIERS = ("fc.", "classifier.", "head.", "heads.", "AuxLogits.", "aux1.", "aux2.")
# The preprocessing that torchvision's classification weights share; a network's own weights may say otherwise.
IMAGENET = Preparation(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@final
class TorchvisionBackbone(_encoder.Trunk):
    """Blocks are the layers of the network's trunk that give maps, one for each entry of its sequences."""

    def __init__(
        self, network: nn.Module, prepare: Preparation, placement: Placement, *, name: str, identity: str
    ) -> None:
        super().__init__(network, prepare.size, placement, name=name, identity=identity)
        self.preprocessing = prepare.settings
        self._prepare = prepare

    def places(self) -> list[Place]:
        """See `places` of the network."""
        return places(self.network)

    @torch.no_grad()
    def preprocess(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Shorter side to 256, centre of 224, ImageNet's mean and deviation, unless the weights say otherwise."""
        return self._prepare(images, self.placement.device)


def places(network: nn.Module) -> list[Place]:
    """Layers of the trunk: sequences are opened, and what stands behind the global pooling is left out."""
    found = []
    for name, module in network.named_children():
        if name.startswith(("avgpool", *(c.rstrip(".") for c in CLASSIFIERS))):
            break
        opened = isinstance(module, nn.Sequential)
        found += [Place(f"{name}.{k}", m) for k, m in module.named_children()] if opened else [Place(name, module)]
    # In-place activations overwrite what stands before them, so a block that one follows is read behind it.
    return [place for k, place in enumerate(found) if not _overwritten(found, k)]


def _overwritten(found: list[Place], k: int) -> bool:
    following = found[k + 1].module if k + 1 < len(found) else None
    return bool(getattr(following, "inplace", False))


def build(name: ModelName, placement: Placement) -> TorchvisionBackbone:
    """`torchvision:NAME` with torchvision's default weights, `torchvision:NAME@FILE` with those of a file."""
    architecture, file = _encoder.split(name)
    published = file is None and not (placement.weightless or name.untrained)
    network, prepare = _network(architecture, placement, published)
    if file is not None and not (placement.weightless or name.untrained):
        _encoder.fit(network, _encoder.read(file), file, CLASSIFIERS)
    network = _folders.cast(network, placement.dtype).eval().requires_grad_(False)
    if not placement.weightless:
        network = network.to(device=placement.device, memory_format=torch.channels_last)
    identity = "" if placement.weightless else _encoder.identity(name, file, network)
    return TorchvisionBackbone(network, prepare, placement, name=str(name), identity=identity)


def _network(architecture: str, placement: Placement, published: bool) -> tuple[Any, Preparation]:
    import torchvision.models

    names = torchvision.models.list_models(module=torchvision.models)
    if architecture not in names:
        raise unknown("network of torchvision", architecture, names)
    if architecture.startswith(("vit_", "swin")):
        raise BadModel(
            f"torchvision:{architecture} gives tokens in layouts of its own. timm reads such networks: timm:NAME."
        )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_folders.UNTRAINED_SEED)
            with torch.device("meta" if placement.weightless else "cpu"):
                weights = "DEFAULT" if published else None
                network = torchvision.models.get_model(architecture, weights=weights)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise BadModel(
            f"torchvision does not give the weights of {architecture} ({reason}). Without a network give a file of "
            f"them, torchvision:{architecture}@FILE, or random ones, torchvision:{architecture}?untrained."
        ) from error
    return network, _preparation(architecture) if published else IMAGENET


def _preparation(architecture: str) -> Preparation:
    """As the published weights were trained."""
    import torchvision.models

    own: Any = torchvision.models.get_model_weights(architecture).DEFAULT.transforms()
    return Preparation(own.resize_size[0], own.crop_size[0], tuple(own.mean), tuple(own.std), own.interpolation.value)

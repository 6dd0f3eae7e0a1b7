"""Encoders of timm, read through their own `forward_intermediates` with its own early stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from twofold.backbones import _encoder, _folders, _taps
from twofold.backbones._encoder import Preparation
from twofold.backbones.base import Backbone, BlockName, Placement
from twofold.errors import BadModel, unknown
from twofold.records import Block, Cost, ModelName

SCHEMES = ("timm",)
FILE = "a .safetensors file or a state dict of torch, timm:NAME@FILE"


@final
class TimmBackbone(Backbone):
    """Blocks are the network's intermediates: the stages of a convolutional network, the layers of a transformer."""

    def __init__(self, network: Any, placement: Placement, *, name: str, identity: str) -> None:
        from timm.data import resolve_model_data_config

        self.network = network
        self.placement = placement
        self.name = name
        self.identity = identity
        config = resolve_model_data_config(network)
        self.image_size = int(config["input_size"][-1])
        self._prepare = Preparation(
            round(self.image_size / config["crop_pct"]), self.image_size, tuple(config["mean"]), tuple(config["std"]),
            config["interpolation"] if config["interpolation"] in ("bilinear", "bicubic") else "bicubic",
        )  # fmt: skip
        self.preprocessing = self._prepare.settings
        if placement.compile:
            self._read = torch.compile(self._read, dynamic=False)  # type: ignore[method-assign]

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Measured in forward passes of shapes alone, one to each depth."""
        found = []
        for k, name in enumerate(_names(self.network)):
            run = self._to(k)
            found.append((name, run()[0], _taps.cost(run).operations))
        total = _taps.cost(_taps.without_weights(self.network, {"x": self._one()})).operations
        return _taps.blocks(found, max(total, found[-1][2]))

    @property
    def parameters(self) -> int:
        """See `Backbone.parameters`."""
        return sum(weights.numel() for weights in self.network.parameters())

    def cost(self, block: BlockName) -> Cost:
        """See `Backbone.cost`."""
        return _taps.cost(self._to(self.block(block).number - 1))

    def _to(self, depth: int) -> Callable[[], Any]:
        """A pass of shapes alone to this depth."""
        return _taps.without_weights(_Reader(self.network), {"x": self._one(), "indices": [depth]})

    def _one(self) -> Tensor:
        return torch.empty(1, 3, self.image_size, self.image_size, device="meta", dtype=self.placement.dtype)

    @torch.no_grad()
    def preprocess(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """As timm's own data configuration of these weights says."""
        return self._prepare(images, self.placement.device)

    @torch.no_grad()
    def features(
        self,
        x: Tensor,
        t: float | Tensor | None,
        blocks: Sequence[BlockName],
        noise: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[BlockName, Tensor]:
        """Maps [B, C, h, w]; tokens that stand for no place (CLS, registers) are left out."""
        if t is not None:
            self.check_step(float(torch.as_tensor(t).flatten()[0]))
        numbers = [self.block(b).number - 1 for b in blocks]
        if not numbers:
            return {}
        order = sorted(set(numbers))
        x = x.to(dtype=self.placement.dtype, memory_format=torch.channels_last)
        found = dict(zip(order, self._read(x, order), strict=True))
        return {asked: found[k] for asked, k in zip(blocks, numbers, strict=True)}

    def _read(self, x: Tensor, order: list[int]) -> list[Tensor]:
        return _intermediates(self.network, x, order)


def _intermediates(network: Any, x: Tensor, indices: list[int]) -> list[Tensor]:
    found: list[Tensor] = network.forward_intermediates(
        x, indices=indices, norm=False, stop_early=True, output_fmt="NCHW", intermediates_only=True
    )
    return found


class _Reader(nn.Module):
    """`forward_intermediates` as a forward pass, so that it can run on shapes alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, indices: list[int]) -> list[Tensor]:
        """The maps at these depths."""
        return _intermediates(self.network, x, indices)


def _names(network: Any) -> list[str]:
    """A name for every intermediate: the module that timm says it comes from."""
    return [str(about["module"]) for about in network.feature_info]


def build(name: ModelName, placement: Placement) -> TimmBackbone:
    """`timm:NAME` with the weights timm publishes, `timm:NAME@FILE` with those of a file."""
    architecture, file = _encoder.split(name)
    random = placement.weightless or name.untrained or file is not None
    network = _network(architecture, placement, published=not random)
    if file is not None and not (placement.weightless or name.untrained):
        _load(network, file)
    network = _folders.cast(network, placement.dtype).eval().requires_grad_(False)
    if not placement.weightless:
        network = network.to(device=placement.device, memory_format=torch.channels_last)
    identity = "" if placement.weightless else _encoder.identity(name, file, network)
    return TimmBackbone(network, placement, name=str(name), identity=identity)


def _network(architecture: str, placement: Placement, *, published: bool) -> Any:
    import timm

    if architecture.partition(".")[0] not in timm.list_models():
        raise unknown("network of timm", architecture, _near(architecture, timm.list_models()))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_folders.UNTRAINED_SEED)
            with torch.device("meta" if placement.weightless else "cpu"):
                network: Any = timm.create_model(architecture, pretrained=published)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise BadModel(
            f"timm does not give the weights of {architecture} ({reason}). Without a network give a file of them, "
            f"timm:{architecture}@FILE.safetensors, or random ones, timm:{architecture}?untrained."
        ) from error
    if not hasattr(network, "forward_intermediates"):
        raise BadModel(f"timm:{architecture} does not hand out its intermediates. Give another network of timm.")
    return network


def _near(asked: str, names: list[str]) -> list[str]:
    """Timm has more than a thousand networks; an error shows those that sound alike."""
    import difflib

    return difflib.get_close_matches(asked, names, n=8, cutoff=0.4)


def _load(network: Any, file: Path) -> None:
    classifier = network.pretrained_cfg.get("classifier") or ()
    spare = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    _encoder.fit(network, _encoder.read(file), file, [f"{name}." for name in spare])

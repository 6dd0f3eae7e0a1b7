"""What encoders of other libraries share: weights from a file, usual preprocessing, a measured list of blocks."""

from __future__ import annotations

import hashlib
import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twofold.backbones import _folders, _taps, _weights
from twofold.backbones._placement import Placement
from twofold.backbones._taps import Place
from twofold.backbones.base import Backbone, BlockName
from twofold.errors import BadModel
from twofold.records import Block, Cost, ModelName

State = dict[str, Tensor]


@dataclass(frozen=True)
class Preparation:
    """How an encoder wants its images: shorter side to `resize`, the centre of `size`, then (x / 255 - mean) / std.

    Attributes:
        resize, size: sides in pixels.
        mean, std: of each channel, for images in 0..1.
        interpolation: `bilinear` or `bicubic`, both with antialiasing.
    """

    resize: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"

    @property
    def settings(self) -> dict[str, Any]:
        """As plain values, with the range that black and white end at."""
        low = min((0 - m) / s for m, s in zip(self.mean, self.std, strict=True))
        high = max((1 - m) / s for m, s in zip(self.mean, self.std, strict=True))
        return {
            "size": self.size, "resize": f"{self.resize} {self.interpolation}, centre crop",
            "mean": list(self.mean), "std": list(self.std), "range": f"{low:.4g}..{high:.4g}",
        }  # fmt: skip

    def __call__(self, images: Tensor | Sequence[Tensor], device: torch.device) -> Tensor:
        """uint8 images [B, 3, H, W], or a sequence of [3, H, W] -> float32 [B, 3, size, size]."""
        pixels = torch.stack([self._square(image) for image in images]).to(device).float() / 255
        mean, std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (self.mean, self.std))
        return (pixels - mean) / std

    def _square(self, image: Tensor) -> Tensor:
        from torchvision.transforms.v2 import functional

        mode = functional.InterpolationMode(self.interpolation)
        resized = functional.resize(image, [self.resize], interpolation=mode, antialias=True)
        cropped: Tensor = functional.center_crop(resized, [self.size, self.size])
        return cropped


class Trunk(Backbone):
    """An encoder whose blocks are layers that give maps."""

    def __init__(self, network: nn.Module, image_size: int, placement: Placement, *, name: str, identity: str) -> None:
        self.network, self.image_size, self.placement = network, image_size, placement
        self.name, self.identity = name, identity
        if placement.compile:
            _taps.compile_each([place.module for place in self.places()])

    @abstractmethod
    def places(self) -> list[Place]:
        """The layers, in order of the forward pass."""

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Measured in a forward pass of shapes alone."""
        return _taps.survey(list(self._places.values()), self.network, self._one())

    @property
    def parameters(self) -> int:
        """See `Backbone.parameters`."""
        return sum(weights.numel() for weights in self.network.parameters())

    def cost(self, block: BlockName) -> Cost:
        """See `Backbone.cost`."""
        run = _taps.without_weights(self.network, self._one())
        return _taps.cost(lambda: _taps.read([self._places[self.block(block).name]], run))

    @torch.no_grad()
    def features(
        self,
        x: Tensor,
        t: float | Tensor | None,
        blocks: Sequence[BlockName],
        noise: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[BlockName, Tensor]:
        """Maps [B, C, h, w]."""
        if t is not None:
            self.check_step(float(torch.as_tensor(t).flatten()[0]))
        wanted = [self._places[self.block(b).name] for b in blocks]
        if not wanted:
            return {}
        x = x.to(dtype=self.placement.dtype, memory_format=torch.channels_last)
        return dict(zip(blocks, _taps.read(wanted, lambda: self.network(x)), strict=True))

    def _one(self) -> dict[str, Tensor]:
        x = torch.empty(1, 3, self.image_size, self.image_size, device="meta", dtype=self.placement.dtype)
        return {self._input: x}

    @cached_property
    def _places(self) -> dict[str, Place]:
        return {place.name: place for place in self.places()}

    @cached_property
    def _input(self) -> str:
        """The name of the forward pass's one argument."""
        return next(iter(inspect.signature(self.network.forward).parameters))


def split(name: ModelName) -> tuple[str, Path | None]:
    """NAME@FILE: the architecture and the file of its weights."""
    architecture, at, file = name.argument.partition("@")
    if not architecture or (at and not file):
        raise BadModel(f"{name} is not {name.scheme}:NAME or {name.scheme}:NAME@FILE. Give the name of a network.")
    return architecture, Path(file) if at else None


def read(path: Path) -> State:
    """The tensors of a safetensors file, or of a file of torch, wherever in it they are; nothing is executed."""
    found = flat(_weights.content(path, str(path)))
    if not found:
        raise BadModel(f"{path} holds no tensors. Give a .safetensors file or a plain state dict.")
    return found


def flat(content: Any, prefix: str = "") -> State:
    """All tensors of nested dictionaries, by their path."""
    if isinstance(content, torch.Tensor):
        return {prefix.removesuffix("."): content}
    found: State = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        found.update(flat(value, f"{prefix}{name}."))
    return found


def fit(network: nn.Module, state: State, path: Path, spare: Sequence[str]) -> None:
    """Load weights whatever is written before the network's own names (`module.`, `encoder_q.`, VISSL's trunk ...).

    Args:
        network: gets the weights.
        state: what `read` gave.
        path: for the error.
        spare: beginnings of names that may be missing: classifiers, which are not read.
    """
    own = network.state_dict()
    needed = [name for name in own if not name.startswith(tuple(spare)) and not name.endswith("num_batches_tracked")]
    prefix = _prefix(state, needed)
    inner = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    missing = [name for name in needed if name not in inner]
    if missing:
        unexpected = next((name for name in inner if name not in own), next(iter(state)))
        raise BadModel(
            f"{path} is of another network: it lacks {missing[0]} and has an unexpected {unexpected}. "
            "Give the weights of the network that is named."
        )
    wrong = [name for name in needed if inner[name].shape != own[name].shape]
    if wrong:
        here, there = tuple(inner[wrong[0]].shape), tuple(own[wrong[0]].shape)
        raise BadModel(f"{path} is of another network: {wrong[0]} has the shape {here}, not {there}.")
    network.load_state_dict({name: inner[name] for name in own if name in needed}, strict=False)


def _prefix(state: State, needed: Sequence[str]) -> str:
    """What stands before the network's names: that under which most of them are found, the first of equals."""
    found = [name.removesuffix(needed[0]) for name in state if name.endswith(needed[0])]
    candidates = [prefix for prefix in found if prefix == "" or prefix.endswith(".")]
    return max(candidates, key=lambda prefix: sum(prefix + name in state for name in needed), default="")


def identity(name: ModelName, file: Path | None, network: nn.Module) -> str:
    """Hash of what features depend on: the architecture, and its weights or the seed they were drawn with."""
    told = hashlib.sha256(f"{name.scheme}:{name.argument.partition('@')[0]}".encode())
    if name.untrained:
        told.update(f"untrained {_folders.UNTRAINED_SEED}".encode())
    elif file is not None:
        told.update(_folders.digest(file))
    else:
        for key, value in sorted(network.state_dict().items()):
            told.update(key.encode() + value.detach().cpu().float().numpy().tobytes())
    return told.hexdigest()[:16]

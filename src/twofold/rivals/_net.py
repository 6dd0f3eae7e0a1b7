"""The U-Net of a run with fresh weights, read on clean images with gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from twofold.backbones import base as backbones
from twofold.backbones._network import DiffusionNetwork
from twofold.errors import BadModel
from twofold.rivals.base import CLEAN


def like(run: str, *, device: str | None = None, weightless: bool = False) -> DiffusionNetwork:
    """The network that a run trained, without what it learned.

    Raises:
        BadModel: it is no U-Net on pixels.
    """
    # Without weights as it is: what cannot be untrained is refused in words about what was given.
    model = run if weightless or "?" in run else f"{run}?untrained"
    found = backbones.load(model, device=device, precision="fp32", weightless=weightless)
    whole = isinstance(found, DiffusionNetwork) and found.parts.pipeline is not None
    if not whole or "mid" not in [block.name for block in found.blocks]:
        raise BadModel(f"--like {run} is no U-Net on pixels. Give a run of `twofold pretrain`.")
    assert isinstance(found, DiffusionNetwork)
    return found


def refresh(network: nn.Module, seed: int) -> None:
    """First weights that belong to a seed, in place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()


@final
class Encoder(nn.Module):
    """A U-Net up to its middle, averaged over space: images -1..1 [B, C, h, w] -> [B, width]."""

    def __init__(self, backbone: DiffusionNetwork) -> None:
        super().__init__()
        self._backbone = (backbone,)  # in a tuple, so that the decoder is no part of this module
        self._step = backbone.step(CLEAN)
        self.width = backbone.block("mid").channels
        self.own = named(backbone.weights("mid"))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        (backbone,) = self._backbone
        return backbone.maps(x, self._step, ["mid"])["mid"].mean((2, 3))


@final
class Whole(nn.Module):
    """A whole U-Net: images -1..1 [B, C, h, w] -> what it gives, as many channels."""

    def __init__(self, backbone: DiffusionNetwork) -> None:
        super().__init__()
        self._backbone = (backbone,)
        self._step = backbone.step(CLEAN)
        self.own = named(dict(backbone.network.named_parameters()))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        (backbone,) = self._backbone
        steps = backbone.native(self._step, len(x))
        given: Tensor = backbone.network(**backbone.parts.arguments(x, steps, None))[0]
        return given[:, : x.shape[1]]


def named(weights: Mapping[str, nn.Parameter]) -> nn.ParameterDict:
    """Weights of the network itself, to be trained, under names that a state dict can hold."""
    return nn.ParameterDict({name.replace(".", "/"): w.requires_grad_() for name, w in weights.items()})

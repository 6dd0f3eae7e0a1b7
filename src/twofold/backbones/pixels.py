"""The images themselves as features: the control that every representation has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from twofold.backbones import _resizing
from twofold.backbones.base import Backbone, BlockName, Placement
from twofold.errors import BadSetting
from twofold.records import Block, Cost, ModelName

SCHEMES = ("pixels",)

DEFAULT_SIZE = 32
LARGEST = 8192


@final
class PixelsBackbone(Backbone):
    """One block: the image in 0..1, brought to `size` x `size`."""

    def __init__(self, size: int, placement: Placement) -> None:
        self.image_size = size
        self.placement = placement
        self.name = f"pixels:{size}"
        self.identity = f"pixels-{size}"
        self.preprocessing = {"size": size, "resize": _resizing.RULE, "range": "0..1"}

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The one block."""
        return (Block(1, "pixels", 3, self.image_size, 1.0),)

    @property
    def parameters(self) -> int:
        """Nothing is learned."""
        return 0

    def cost(self, block: BlockName) -> Cost:
        """Nothing is computed."""
        return Cost(0, 3 * self.image_size**2 * 4)

    def preprocess(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """uint8 [B, 3, H, W] -> float32 0..1, x / 255."""
        return _resizing.square(images, self.image_size).to(self.placement.device).float() / 255

    def features(
        self,
        x: Tensor,
        t: float | Tensor | None,
        blocks: Sequence[BlockName],
        noise: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[BlockName, Tensor]:
        """The image; see `Backbone.features`."""
        if t is not None:
            self.check_step(float(torch.as_tensor(t).flatten()[0]))
        for asked in blocks:
            self.block(asked)
        return dict.fromkeys(blocks, x)


def build(name: ModelName, placement: Placement) -> PixelsBackbone:
    """`pixels` reads at 32 x 32, `pixels:SIZE` at another size."""
    if name.untrained:
        raise BadSetting("pixels has no weights, so `?untrained` means nothing for it. Give `pixels`.")
    size = name.argument or str(DEFAULT_SIZE)
    if not (size.isdecimal() and len(size) <= len(str(LARGEST)) and 0 < int(size) <= LARGEST):
        raise BadSetting(
            f"pixels:{size[:40]}: the part after the colon is the side, 1 to {LARGEST} pixels, for instance pixels:8."
        )
    return PixelsBackbone(int(size), placement)

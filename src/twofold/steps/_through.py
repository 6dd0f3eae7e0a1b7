"""Networks from prepared images to class scores, trained through a diffusion network or beside it.

frozen    features without gradients, then a head
full      every weight up to the block is trained with the head (P1's fine-tuning; from `?untrained` its U-Net encoder)
difffeed  P2's feedback: what the decoder knows goes back into the encoder of a second pass (PAPER.md 1.5)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from twofold import pooling
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.errors import BadSetting
from twofold.heads._trained import Trained
from twofold.records import Cell

MODES = ("frozen", "full", "difffeed")


@final
class Through(nn.Module):
    """Features of one block, a batch norm without weights, and a head; `mode` says what is trained beside the head.

    Args:
        backbone: the network; a diffusion network but for `frozen`.
        cell: where it is read.
        head: its module is used, and its settings.
        classes: K.
        mode: one of `MODES`.
        seed: of the first weights.
        pairs: for `difffeed`: decoder block -> encoder block that its feedback goes to.
    """

    def __init__(
        self, backbone: Backbone, cell: Cell, head: Trained, classes: int, mode: str, seed: int,
        pairs: Mapping[int, int],
    ) -> None:  # fmt: skip
        super().__init__()
        self.mode, self.cell, self.pairs = mode, cell, dict(pairs)
        self._backbone = (backbone,)  # in a tuple, so that its weights are no part of this module
        block = backbone.block(cell.tap.block)
        shape = (block.channels * cell.pool**2,) if cell.pool else (block.channels, block.size, block.size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # P1: batch norm, then the head; it has no weights to train.
            norm = nn.BatchNorm1d if cell.pool else nn.BatchNorm2d
            self.norm = norm(shape[0], affine=False)
            self.head = head.network(shape, classes)
            self.feedback = nn.ModuleDict(
                {str(b): feedback(backbone.block(b).channels, backbone.block(e).channels) for b, e in pairs.items()}
            )
        self.to(backbone.placement.device)
        # A list of weights of the network itself, under names that a state dict can hold.
        self.own = nn.ParameterDict()
        if mode == "full":
            assert isinstance(backbone, DiffusionBackbone)
            weights = backbone.weights(cell.tap.block)
            self.own = nn.ParameterDict({name.replace(".", "/"): w.requires_grad_() for name, w in weights.items()})

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Prepared images [B, C, h, w] and their noise -> class scores [B, K]."""
        features = pooling.pool(self._features(x, noise), self.cell.pool)
        scores: Tensor = self.head(self.norm(features))
        return scores

    def _features(self, x: Tensor, noise: Tensor | None) -> Tensor:
        (backbone,), t, block = self._backbone, self.cell.tap.t, self.cell.tap.block
        if self.mode == "frozen":
            return backbone.features(x, t, [block], noise)[block]
        assert isinstance(backbone, DiffusionBackbone) and t is not None and noise is not None
        x_t = backbone.noised(x, t, noise)
        if self.mode == "full":
            return backbone.maps(x_t, t, [block])[block]
        # The first pass without gradients; the second sees the same noised image, and what the decoder knew of it.
        known = backbone.features(x_t, t, list(self.pairs))
        added = {e: self.feedback[str(b)](known[b].float()) for b, e in self.pairs.items()}
        return backbone.maps(x_t, t, [block], added=added)[block]


def feedback(channels: int, target: int) -> nn.Module:
    """P2's feedback net "C_B_R": 1x1 convolution without bias, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(channels, target, 1, bias=False), nn.BatchNorm2d(target), nn.ReLU())


def mirror_pairs(backbone: Backbone) -> dict[int, int]:
    """Decoder block -> encoder block of its feedback: the first layer of each encoder level, and its mirror.

    Mirrors add up to the number of blocks plus one. For ADM-256 these are P2's 21, 24, 27, 30, 33, 36 into 17, 14, 11,
    8, 5, 2.

    Raises:
        BadSetting: the network is no U-Net.
    """
    names = {block.name: block.number for block in backbone.blocks}
    count = len(names)
    if not isinstance(backbone, DiffusionBackbone) or 2 * names.get("mid", 0) != count + 1:
        raise BadSetting(f"--mode difffeed needs a U-Net, whose decoder mirrors its encoder; {backbone.name} is none.")
    firsts = [n for name, n in names.items() if name.startswith("down.") and name.endswith(".0")]
    return {count + 1 - n: n for n in sorted(firsts, reverse=True)}

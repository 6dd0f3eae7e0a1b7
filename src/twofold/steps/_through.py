"""Networks from prepared images to class scores, trained through a diffusion network or beside it.

frozen    features without gradients, then a head
full      every weight up to the block is trained with the head (P1's fine-tuning; from `?untrained` its U-Net encoder)
difffeed  P2's feedback: what the decoder knows goes back into the encoder of a second pass (PAPER.md 1.5)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from twofold import pooling
from twofold.backbones.base import Backbone, BlockName, DiffusionBackbone
from twofold.errors import BadSetting
from twofold.heads._trained import Trained
from twofold.records import Cell, Tap

MODES = ("frozen", "full", "difffeed")


@final
class Through(nn.Module):
    """Features, a batch norm without weights for each block and step, and a head; `mode` says what else is trained.

    Args:
        backbone: the network; a diffusion network but for `frozen`.
        cells: where it is read; several for a head that joins maps.
        head: its module is used, and its settings.
        classes: K.
        mode: one of `MODES`.
        seed: of the first weights.
        pairs: for `difffeed`: decoder block -> encoder block that its feedback goes to.
    """

    def __init__(
        self, backbone: Backbone, cells: Sequence[Cell], head: Trained, classes: int, mode: str, seed: int,
        pairs: Mapping[int, int],
    ) -> None:  # fmt: skip
        super().__init__()
        self.mode, self.cells, self.pairs = mode, tuple(cells), dict(pairs)
        self._backbone = (backbone,)  # in a tuple, so that its weights are no part of this module
        shapes = {str(cell): _shape(backbone, cell) for cell in cells}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # P1: batch norm, then the head; it has no weights to train.
            norm = nn.BatchNorm1d if cells[0].pool else nn.BatchNorm2d
            self.norms = nn.ModuleList(norm(shape[0], affine=False) for shape in shapes.values())
            self.head = head.network(shapes if head.several else _read([*shapes.values()]), classes)
            self.feedback = nn.ModuleDict(
                {str(b): feedback(backbone.block(b).channels, backbone.block(e).channels) for b, e in pairs.items()}
            )
        self.to(backbone.placement.device)
        # A list of weights of the network itself, under names that a state dict can hold.
        own = own_weights(backbone, cells, mode)
        self.own = nn.ParameterDict({name.replace(".", "/"): w.requires_grad_() for name, w in own.items()})

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Prepared images [B, C, h, w] and their noise -> class scores [B, K]."""
        scores: Tensor = self.head(self.features(x, noise))
        return scores

    def features(self, x: Tensor, noise: Tensor | None) -> Any:
        """What the head reads, normalised: rows [B, D], those of several cells joined; a map, or a tuple of them."""
        maps = self._maps(x, noise)
        found = tuple(
            norm(pooling.pool(maps[cell.tap], cell.pool)) for norm, cell in zip(self.norms, self.cells, strict=True)
        )
        return torch.cat(found, 1) if self.cells[0].pool else found if len(found) > 1 else found[0]

    def _maps(self, x: Tensor, noise: Tensor | None) -> dict[Tap, Tensor]:
        (backbone,) = self._backbone
        found: dict[Tap, Tensor] = {}
        # One pass for all blocks of a step.
        for t in dict.fromkeys(cell.tap.t for cell in self.cells):
            blocks = [cell.tap.block for cell in self.cells if cell.tap.t == t]
            frozen = self.mode == "frozen"
            read = backbone.features(x, t, blocks, noise) if frozen else self._trained(x, t, blocks, noise)
            found |= {Tap(block, t): read[block] for block in blocks}
        return found

    def _trained(self, x: Tensor, t: float | None, blocks: list[int], noise: Tensor | None) -> dict[BlockName, Tensor]:
        """The blocks with gradients, for the network's weights or for the feedback nets."""
        (backbone,) = self._backbone
        assert isinstance(backbone, DiffusionBackbone) and t is not None and noise is not None
        x_t = backbone.noised(x, t, noise)
        if self.mode == "full":
            return backbone.maps(x_t, t, blocks)
        # The first pass without gradients; the second sees the same noised image, and what the decoder knew of it.
        known = backbone.features(x_t, t, list(self.pairs))
        added = {e: self.feedback[str(b)](known[b].float()) for b, e in self.pairs.items()}
        return backbone.maps(x_t, t, blocks, added=added)


def own_weights(backbone: Backbone, cells: Sequence[Cell], mode: str) -> dict[str, nn.Parameter]:
    """The network's own weights that are trained, by name: with `full` all up to the deepest block that is read."""
    if mode != "full":
        return {}
    assert isinstance(backbone, DiffusionBackbone)
    return backbone.weights(max(cell.tap.block for cell in cells))


def put_back(backbone: Backbone, weights: Mapping[str, Tensor]) -> None:
    """Bring weights of the network back to what they were."""
    if not weights:
        return
    assert isinstance(backbone, DiffusionBackbone)
    last = backbone.weights(backbone.blocks[-1].number)
    with torch.no_grad():
        for name, value in weights.items():
            last[name].copy_(value)


def _shape(backbone: Backbone, cell: Cell) -> tuple[int, ...]:
    """Of a row that is read there."""
    block = backbone.block(cell.tap.block)
    return (block.channels * cell.pool**2,) if cell.pool else (block.channels, block.size, block.size)


def _read(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Of what a head reads that joins nothing itself: one map, or the rows of several cells beside one another."""
    return shapes[0] if len(shapes) == 1 else (sum(width for (width,) in shapes),)


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

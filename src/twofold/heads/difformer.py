"""Attention over the maps of several blocks at several noise steps: P2's DifFormer (PAPER.md 1.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from twofold.errors import BadData
from twofold.heads._trained import Trained
from twofold.heads._transformer import Encoder, tokens_of
from twofold.records import Cell

Taps = Mapping[str, tuple[int, ...]]


@final
@dataclass(eq=False)
class DifFormer(Trained):
    """A tokenizer a block, shared by all noise steps; the tokens of all blocks and a class token through one encoder.

    The encoder's weights are the same for every step. The class tokens of the steps are concatenated, then a linear
    layer. With one step it joins blocks alone, with one block steps alone.

    Args:
        blocks: transformer blocks.
        width: of the tokens.
        attention_heads: of every block, as many of them as divide the width.
    """

    blocks: int = 2
    width: int = 1024
    attention_heads: int = 8

    several = True
    paper_rate = 5e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_whole("blocks", "width", "attention_heads")

    def network(self, shape: Taps, classes: int) -> nn.Module:
        """For maps named as cells, of every block at every step, `{"b19_t90_p0": (1024, 8, 8), ...}`."""
        return _Network(shape, classes, self)


class _Network(nn.Module):
    def __init__(self, shapes: Taps, classes: int, head: DifFormer) -> None:
        super().__init__()
        self.grid = _grid(shapes)
        names = list(shapes)
        self.tokenizers = nn.ModuleList(tokens_of(shapes[names[row[0]]], head.width) for row in self.grid)
        self.encoder = Encoder(head.width, head.blocks, head.attention_heads)
        self.classifier = nn.Linear(head.width * len(self.grid[0]), classes)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Maps [B, C, h, w] in the order of their names -> [B, K]."""
        # The steps share every weight, so they pass as one batch: [T B, ...], step after step.
        stacked = [torch.cat([maps[k] for k in row]) for row in self.grid]
        tokens = [tokenizer(x) for tokenizer, x in zip(self.tokenizers, stacked, strict=True)]
        per_step = self.encoder(*tokens).unflatten(0, (len(self.grid[0]), -1))
        scores: Tensor = self.classifier(per_step.transpose(0, 1).flatten(1))
        return scores


def _grid(shapes: Taps) -> list[list[int]]:
    """Positions of the maps: a list for each block, in it one for each step.

    Raises:
        BadData: there is one map alone, or a block is not there at every step with the same shape.
    """
    if len(shapes) < 2:
        raise BadData(
            f"difformer got {' and '.join(shapes) or 'nothing'}: it joins the maps of several blocks or noise steps. "
            "Give several --block or --t; the head attention reads one map."
        )
    taps = {Cell.parse(name).tap: k for k, name in enumerate(shapes)}
    steps = list(dict.fromkeys(tap.t for tap in taps))
    found = []
    for block in dict.fromkeys(tap.block for tap in taps):
        row = {tap.t: k for tap, k in taps.items() if tap.block == block}
        same = {shape for name, shape in shapes.items() if Cell.parse(name).tap.block == block}
        if row.keys() != set(steps) or len(same) > 1:
            raise BadData(f"difformer reads every block at every noise step; block {block} is not. Give the full grid.")
        found.append([row[t] for t in steps])
    return found


build = DifFormer

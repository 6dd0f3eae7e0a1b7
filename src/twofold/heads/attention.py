"""Attention over the positions of a map: head D of P1 and the attention head of P2 (PAPER.md 1.4 and 1.5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from twofold.errors import unknown
from twofold.heads._trained import Trained

RATIO = 4
TOKENIZERS = ("p1", "p2")


@final
@dataclass(eq=False)
class Attention(Trained):
    """Tokens and a class token through pre-norm transformer blocks; the class token, then a linear layer.

    Args:
        tokenizer: `p1` halves the map by averages and takes its positions as they are (its width is that of the map);
            `p2` averages to 16 x 16 at most, normalises, and brings them to `width` by a 1x1 convolution.
        blocks: transformer blocks; None: one for p1, two for p2.
        width: of p2's tokens.
        attention_heads: of every block, as many of them as divide the width.
    """

    tokenizer: str = "p1"
    blocks: int | None = None
    width: int = 1024
    attention_heads: int = 8

    maps = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer not in TOKENIZERS:
            raise unknown("tokenizer of the attention head", self.tokenizer, TOKENIZERS)

    def network(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Tokenizer, blocks and classifier."""
        first = self.tokenizer == "p1"
        width = shape[0] if first else self.width
        tokens = nn.AvgPool2d(2, ceil_mode=True) if first else tokens_of(shape, width)
        number = self.blocks or (1 if first else 2)
        blocks = [Block(width, math.gcd(self.attention_heads, width)) for _ in range(number)]
        return nn.Sequential(tokens, Encoder(width, blocks), nn.Linear(width, classes))


def tokens_of(shape: tuple[int, ...], width: int, most: int = 16) -> nn.Module:
    """P2's tokenizer: [B, C, h, w] -> [B, width, s, s] with s at most `most`; its norm has weights for every place."""
    channels, side = shape[0], min(shape[1], most)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(side), nn.LayerNorm((channels, side, side)), nn.Conv2d(channels, width, 1)
    )


class Encoder(nn.Module):
    """Maps [B, W, s, s] -> the class token after the blocks, [B, W]."""

    def __init__(self, width: int, blocks: list[Block]) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, maps: Tensor) -> Tensor:
        """The class token is the first of the tokens; there are no places, as in the papers."""
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1)
        first: Tensor = self.blocks(tokens)[:, 0]
        return first


class Block(nn.Module):
    """Attention and a perceptron, each after a layer norm and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, RATIO * width), nn.GELU(), nn.Linear(RATIO * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, W] -> [B, N, W]."""
        count, number, width = tokens.shape
        parts = self.qkv(self.norm1(tokens)).view(count, number, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        # Written out: torch's fused attention cannot be stacked over candidates.
        weights = (query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        mixed = weights @ value
        tokens = tokens + self.out(mixed.transpose(1, 2).reshape(count, number, width))
        after: Tensor = tokens + self.perceptron(self.norm2(tokens))
        return after


build = Attention

"""Tokens of maps and pre-norm transformer blocks over them, shared by the attention heads (PAPER.md 1.4 and 1.5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

RATIO = 4


def tokens_of(shape: tuple[int, ...], width: int, most: int = 16) -> nn.Module:
    """P2's tokenizer: [B, C, h, w] -> [B, width, s, s] with s at most `most`; its norm has weights for every place."""
    channels, side = shape[0], min(shape[1], most)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(side), nn.LayerNorm((channels, side, side)), nn.Conv2d(channels, width, 1)
    )


class Encoder(nn.Module):
    """A class token and the tokens through blocks: maps [B, W, s, s], of equal width -> the class token, [B, W].

    Args:
        width: W.
        number: of blocks.
        heads: of every block, as many of them as divide the width.
    """

    def __init__(self, width: int, number: int, heads: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*(Block(width, math.gcd(heads, width)) for _ in range(number)))

    def forward(self, *maps: Tensor) -> Tensor:
        """All maps' places are one sequence, the class token its first; places have no code, as in the papers."""
        tokens = torch.cat([one.flatten(2) for one in maps], 2).transpose(1, 2)
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
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.out(mixed.transpose(1, 2).reshape(count, number, width))
        after: Tensor = tokens + self.perceptron(self.norm2(tokens))
        return after

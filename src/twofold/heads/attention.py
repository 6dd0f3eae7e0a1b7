"""Attention over the positions of a map: head D of P1 and the attention head of P2 (PAPER.md 1.4 and 1.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import nn

from twofold.errors import BadSetting, unknown
from twofold.heads._trained import Trained
from twofold.heads._transformer import Encoder, tokens_of

TOKENIZERS = ("p1", "p2")
WIDTH = 1024  # of P2's tokens


@final
@dataclass(eq=False)
class Attention(Trained):
    """Tokens and a class token through pre-norm transformer blocks; the class token, then a linear layer.

    Args:
        tokenizer: `p1` halves the map by averages and takes its positions as they are (its width is that of the map);
            `p2` averages to 16 x 16 at most, normalises, and brings them to `width` by a 1x1 convolution.
        blocks: transformer blocks; None: one for p1, two for p2.
        width: of p2's tokens; None: 1024.
        attention_heads: of every block, as many of them as divide the width.
    """

    tokenizer: str = "p1"
    blocks: int | None = None
    width: int | None = None
    attention_heads: int = 8

    maps = True
    paper_rate = 5e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_whole("blocks", "width", "attention_heads")
        if self.tokenizer not in TOKENIZERS:
            raise unknown("tokenizer of the attention head", self.tokenizer, TOKENIZERS)
        if self.tokenizer == "p1" and self.width is not None:
            raise BadSetting(
                "P1's attention head is as wide as the map it reads, so width means nothing to it. "
                "Leave it out, or write attention?tokenizer=p2&width=WIDTH."
            )

    def network(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Tokenizer, blocks and classifier."""
        first = self.tokenizer == "p1"
        width = shape[0] if first else self.width or WIDTH
        tokens = nn.AvgPool2d(2, ceil_mode=True) if first else tokens_of(shape, width)
        number = self.blocks or (1 if first else 2)
        return nn.Sequential(tokens, Encoder(width, number, self.attention_heads), nn.Linear(width, classes))


build = Attention

"""A multilayer perceptron on pooled features: head B of P1 (PAPER.md 1.4)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import final

from torch import nn

from twofold.heads._trained import Trained


@final
@dataclass(eq=False)
class Mlp(Trained):
    """Linear layers with ReLU between them.

    Args:
        hidden: widths of the inner layers; 2048 is what P1's plotted parameter counts fit.
    """

    hidden: int | tuple[int, ...] = 2048

    def network(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The layers, a ReLU after each but the last."""
        inner = (self.hidden,) if isinstance(self.hidden, int) else self.hidden
        layers: list[nn.Module] = []
        for before, after in pairwise((shape[0], *inner)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear((shape[0], *inner)[-1], classes))


build = Mlp

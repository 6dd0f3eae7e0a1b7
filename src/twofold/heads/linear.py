"""One linear layer on pooled features, trained by gradients: head A of P1 (PAPER.md 1.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import nn

from twofold.heads._trained import Trained


@final
@dataclass(eq=False)
class Linear(Trained):
    """Standardised features, then a linear layer: (D + 1) K parameters."""

    def network(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """One layer."""
        return nn.Linear(shape[0], classes)


build = Linear

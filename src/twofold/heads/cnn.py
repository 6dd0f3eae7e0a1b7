"""A small convolutional network on unpooled maps: head C of P1 (PAPER.md 1.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import nn

from twofold.heads._trained import Trained


@final
@dataclass(eq=False)
class Cnn(Trained):
    """A 1x1 convolution to `width`, then `layers` 3x3 convolutions that halve the map, the mean, a linear layer.

    P1 plots eight variants between 2.5 and 66 million parameters and gives no layers. These are ours: with 1024
    channels of 16 x 16 and 1000 classes, widths 256, 512, 1024 and 1536 with two layers have 1.7, 5.8, 21.0 and 45.6
    million.

    Args:
        width: channels.
        layers: 3x3 convolutions.
    """

    width: int = 512
    layers: int = 2

    maps = True

    def network(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Convolutions with a group norm and ReLU after each, then the mean of the map."""
        made: list[nn.Module] = [nn.Conv2d(shape[0], self.width, 1), *self._after()]
        for _ in range(self.layers):
            made += [nn.Conv2d(self.width, self.width, 3, stride=2, padding=1), *self._after()]
        return nn.Sequential(*made, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(self.width, classes))

    def _after(self) -> list[nn.Module]:
        """A group norm in place of a batch norm: a row's scores do not depend on the rows beside it."""
        return [nn.GroupNorm(1, self.width), nn.ReLU()]


build = Cnn

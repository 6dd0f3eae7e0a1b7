"""Passes over images with fresh augmentation and noise in each: functions of (seed, epoch, image index) alone.

So a run that goes on after a kill sees what it would have seen, and a checkpoint needs no generator's state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twofold import noise, runs
from twofold.backbones.base import Backbone
from twofold.datasets.base import Rows
from twofold.steps._ahead import ahead

if TYPE_CHECKING:
    import torch
    from torch import Tensor

AUGMENTATIONS = ("crop", "flip", "none")
LARGEST = 1.25  # P2 brings the shorter side to 256..320 before it crops 256 (PAPER.md 2)


@dataclass(frozen=True)
class Stream:
    """The images of one split, as a network is trained on them.

    Attributes:
        backbone, rows: what prepares the images, and where they come from.
        seed, batch: of everything drawn; images at a time.
        augment: `crop`, `flip`, both, or `none`.
    """

    backbone: Backbone
    rows: Rows
    seed: int
    batch: int
    augment: tuple[str, ...] = ()

    @property
    def batches(self) -> int:
        """Batches in a training pass, none smaller than `batch` where there are so many images; none is left out."""
        return max(len(self.rows) // self.batch, 1)

    @property
    def sizes(self) -> list[int]:
        """Images of each batch of a training pass, in all processes."""
        return [len(part) for part in np.array_split(np.arange(len(self.rows)), self.batches)]

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Batches of a training pass, made ahead: prepared images, noise, labels; every pass has draws of its own.

        Of several processes each gets its share of every batch.
        """
        order = noise.generator(self.seed, number, purpose=noise.ORDER).permutation(len(self.rows))
        return ahead(self._batch(_share(part), number + 1) for part in np.array_split(order, self.batches))

    def plain(self) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Batches in order, for judging: no augmentation, and the noise that the images have in a store (draw 0).

        Of several processes each gets a stretch of the rows.
        """
        mine = _share(np.arange(len(self.rows)))
        return ahead(self._batch(part, 0) for part in np.split(mine, range(self.batch, len(mine), self.batch)))

    def _batch(self, positions: NDArray[np.int64], draw: int) -> tuple[Tensor, Tensor | None, Tensor]:
        import torch

        from twofold.backbones.base import DiffusionBackbone

        images: Sequence[Tensor] | Tensor = self.rows.read(positions)
        index = self.rows.index[positions]
        if draw:
            images = [self._augmented(image, int(i), draw) for image, i in zip(images, index, strict=True)]
        x, own = self.backbone.preprocess(images), None
        if isinstance(self.backbone, DiffusionBackbone):
            own = torch.from_numpy(noise.normal(self.seed, index, x.shape[1:], draw=draw))
        return x, own, torch.from_numpy(self.rows.labels[positions])

    def _augmented(self, image: torch.Tensor, index: int, draw: int) -> torch.Tensor:
        """A random square of the image, mirrored or not; uint8 [3, H, W] -> uint8 [3, s, s]."""
        chance = noise.generator(self.seed, index, draw=draw, purpose=noise.AUGMENTATION)
        share, down, right, mirror = chance.random(4)
        height, width = image.shape[-2:]
        if "crop" in self.augment:
            side = round(min(height, width) / (1 + (LARGEST - 1) * share))
            top, left = int(down * (height - side + 1)), int(right * (width - side + 1))
            image = image[:, top : top + side, left : left + side]
        return image.flip(-1) if "flip" in self.augment and mirror < 0.5 else image


def _share(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """This process's part; torch is only needed where there are others."""
    if runs.processes() == 1:
        return positions
    from twofold.steps import _together

    return _together.share(positions)

"""A generator of images: noise, a small map, and convolutions between doublings; and the images it leaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twofold import files, noise
from twofold.backbones._network import DiffusionNetwork
from twofold.plots import pictures
from twofold.steps import _drawn

NOISE = 64  # numbers that an image is made from
BATCH = 100
GRID = 100
WRITERS = 8  # files that are on their way to the disk at once


@final
class Generator(nn.Module):
    """Standard normal numbers [B, NOISE] -> images -1..1 [B, C, h, w]; as many channels as a U-Net's middle has."""

    def __init__(self, backbone: DiffusionNetwork) -> None:
        super().__init__()
        middle, (channels, side, _) = backbone.block("mid"), backbone.sample_shape
        width, size = middle.channels, middle.size
        layers: list[nn.Module] = [nn.Linear(NOISE, width * size**2), nn.Unflatten(1, (width, size, size))]
        while size < side:
            layers += [*_layer(width), nn.Upsample(scale_factor=2)]
            size *= 2
        last = [*_normed(width), nn.Conv2d(width, channels, 3, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers, *_layer(width), *last)

    def forward(self, z: Tensor) -> Tensor:
        """See the class."""
        made: Tensor = self.layers(z)
        return made


def _layer(width: int) -> list[nn.Module]:
    return [*_normed(width), nn.Conv2d(width, width, 3, padding=1)]


def _normed(width: int) -> list[nn.Module]:
    return [nn.GroupNorm(8 if width % 8 == 0 else 1, width), nn.SiLU()]


@torch.no_grad()
def write(generator: Generator, backbone: DiffusionNetwork, out: Path, num: int, seed: int) -> None:
    """Write images as `twofold sample` does; image i depends on weights and (seed, i) alone."""
    device = next(generator.parameters()).device
    for start in range(0, num, BATCH):
        rows = range(start, min(start + BATCH, num))
        z = torch.from_numpy(noise.normal(seed, rows, (NOISE,), purpose=noise.SAMPLING))
        paths = [_drawn.path(out, index) for index in rows]
        with ThreadPoolExecutor(WRITERS) as writers:
            list(writers.map(_save, backbone.pixels(generator(z.to(device))), paths))
    pictures.image_grid([_drawn.path(out, i) for i in range(min(num, GRID))], out / "grid.png")


def _save(image: NDArray[np.uint8], path: Path) -> None:
    from PIL import Image

    with files.replacing(path) as temporary:
        Image.fromarray(image).save(temporary)

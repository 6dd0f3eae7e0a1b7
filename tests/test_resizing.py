"""Bringing images to a network's size: P1's way, by a faster library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from twofold.backbones import _resizing


def picture(width: int, height: int) -> Image.Image:
    """Noise as rough as a photograph's."""
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1))


def as_guided_diffusion(image: Image.Image, side: int) -> np.ndarray[Any, Any]:
    """PAPER.md section 2, by Pillow."""
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = side / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    top, left = (image.height - side) // 2, (image.width - side) // 2
    return np.asarray(image)[top : top + side, left : left + side]


@pytest.mark.parametrize("size", [(64, 64), (50, 37), (37, 50), (100, 90), (128, 131), (200, 129), (511, 300), (10, 9)])
def test_images_are_brought_to_size_as_guided_diffusion_does(size: tuple[int, int]) -> None:
    image = picture(*size)
    raw = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    (found,) = _resizing.square([raw], 64)
    assert found.dtype == torch.uint8 and found.shape == (3, 64, 64)
    off = np.abs(found.permute(1, 2, 0).numpy().astype(int) - as_guided_diffusion(image, 64))
    assert off.max() <= 2 and (off > 1).mean() < 1e-3 and off.mean() < 0.02


def test_images_of_the_size_are_left_alone() -> None:
    batch = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert _resizing.square(batch, 8) is batch
    assert torch.equal(_resizing.square(list(batch), 8), batch)

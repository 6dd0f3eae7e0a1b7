"""From raw images of any size to a square batch, as guided-diffusion does it (PAPER.md section 2, "test")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def square(images: Tensor | Sequence[Tensor], side: int) -> Tensor:
    """Bring uint8 images [3, H, W] to uint8 [B, 3, side, side]; images of that size pass through untouched."""
    if isinstance(images, torch.Tensor) and images.shape[-2:] == (side, side):
        return images
    return torch.stack([image if image.shape[-2:] == (side, side) else _fit(image, side) for image in images])


def _fit(image: Tensor, side: int) -> Tensor:
    """Halve with a box filter while twice too large, scale the shorter side bicubically, crop the centre."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = side / min(picture.size)
    size = (max(side, round(picture.width * scale)), max(side, round(picture.height * scale)))
    pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    cropped = pixels[top : top + side, left : left + side]
    return torch.from_numpy(cropped.copy()).permute(2, 0, 1)

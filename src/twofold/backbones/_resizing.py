"""From raw images of any size to a square batch, as guided-diffusion does it (PAPER.md section 2, "test")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

# What a store's key says of it.
RULE = "box halving, bicubic by torch, centre crop"


def square(images: Tensor | Sequence[Tensor], side: int) -> Tensor:
    """Bring uint8 images [3, H, W] to uint8 [B, 3, side, side]; images of that size pass through untouched.

    Of images that were fitted the channels lie side by side in memory (channels_last), as decoders give them and
    networks want them.
    """
    if isinstance(images, torch.Tensor) and images.shape[-2:] == (side, side):
        return images
    return torch.from_numpy(np.stack([_fit(image, side) for image in images])).permute(0, 3, 1, 2)


def _fit(image: Tensor, side: int) -> NDArray[np.uint8]:
    """Halve with a box filter while twice too large, scale the shorter side bicubically, crop: [side, side, 3].

    The bicubic filter is torch's: three times as fast as Pillow's, which guided-diffusion uses, and within 1 of its
    256 levels but for some pixels in ten million (docs/benchmarks.md).
    """
    if image.shape[-2:] != (side, side):
        image = _halved(image, side)
        scale = side / min(image.shape[-2:])
        height, width = (max(side, round(length * scale)) for length in image.shape[-2:])
        image = functional.interpolate(image[None], (height, width), mode="bicubic", antialias=True)[0]
        top, left = (height - side) // 2, (width - side) // 2
        image = image[:, top : top + side, left : left + side]
    return image.permute(1, 2, 0).numpy()


def _halved(image: Tensor, side: int) -> Tensor:
    """Each two by two pixels to one, until the shorter side is less than twice what is wanted."""
    if min(image.shape[-2:]) < 2 * side:
        return image
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)

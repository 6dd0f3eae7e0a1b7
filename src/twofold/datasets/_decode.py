"""From an image file to uint8 RGB, whatever it is stored as."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from twofold.errors import BadData

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def decode(path: Path) -> Tensor:
    """uint8 [3, H, W]; an image that does not decode is an error with its name."""
    with warnings.catch_warnings():
        # Pillow only warns of images that are suspiciously large; they may be bombs.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                image.load()
                pixels = np.asarray(rgb(ImageOps.exif_transpose(image)))
        except Exception as error:
            reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
            raise BadData(f"{path} does not decode ({reason}). Mend or remove the file.") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def rgb(image: Image.Image) -> Image.Image:
    """Grey, 16-bit, palette, CMYK to RGB; what is transparent is laid on white."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        top = 65535 if values.max(initial=0) > 255 else 255
        image = Image.fromarray(np.clip(values * (255 / top), 0, 255).round().astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, seen)
    return image.convert("RGB")


def header(path: Path) -> tuple[int, int, str]:
    """Width, height and mode, without decoding."""
    try:
        with Image.open(path) as image:
            return image.width, image.height, image.mode
    except Exception as error:
        raise BadData(f"{path} does not decode ({type(error).__name__}). Mend or remove the file.") from error

"""From an encoded image to uint8 RGB, whatever it is stored as."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from twofold.errors import BadData

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# A file of some kilobytes can unfold to gigabytes. Cameras of that many pixels are rare, and no network sees them.
MOST_PIXELS = 50_000_000
# A line or a dot shows nothing: tracking pixels, spacers of web pages.
LEAST_SIDE = 2


def decode(file: Path | BinaryIO, name: Callable[[], str] | None = None) -> Tensor:
    """uint8 [3, H, W]; an image that does not decode is a `BadData` with its name (by default its path)."""
    with _opened(file, name) as image:
        image.load()
        # In place: without a rotation to undo, the other way makes a copy.
        ImageOps.exif_transpose(image, in_place=True)
        pixels = np.asarray(rgb(image))
    import torch

    # Pillow's bytes are not ours to write to, and torch warns of arrays that are read-only.
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def header(file: Path | BinaryIO) -> tuple[int, int, str]:
    """Width, height and mode, without decoding."""
    with _opened(file, None) as image:
        return image.width, image.height, image.mode


def rgb(image: Image.Image) -> Image.Image:
    """Grey, 16-bit, palette, CMYK to RGB; what is transparent is laid on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        top = 65535 if values.max(initial=0) > 255 else 255
        image = Image.fromarray(np.clip(values * (255 / top), 0, 255).round().astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, seen)
    return image.convert("RGB")


@contextmanager
def _opened(file: Path | BinaryIO, name: Callable[[], str] | None) -> Iterator[Image.Image]:
    """An image whose header is sound; whatever goes wrong inside is said of it."""
    _be_quiet()
    try:
        with Image.open(file) as image:
            if reason := _refused(image.width, image.height):
                raise ValueError(reason)
            yield image
    except Exception as error:
        reason = "the file is empty" if _is_empty(file) else _reason(error)
        raise BadData(f"{name() if name else file} does not decode ({reason}). Mend or remove the file.") from error


def _refused(width: int, height: int) -> str:
    if width * height > MOST_PIXELS:
        return f"{width:,} x {height:,} pixels, a bomb: more than {MOST_PIXELS // 10**6} million are not unfolded"
    if min(width, height) < LEAST_SIDE:
        return f"{width} x {height} pixels show nothing"
    return ""


def _reason(error: Exception) -> str:
    """What went wrong in a few words; Pillow's own where they say it."""
    told = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"a bomb: more than {MOST_PIXELS // 10**6} million pixels are not unfolded"
    if isinstance(error, UnidentifiedImageError):
        return "its bytes are no image of any kind that Pillow reads"
    return f"cut off: {told}" if "truncated" in told.lower() else told


def _is_empty(file: Path | BinaryIO) -> bool:
    if isinstance(file, Path):
        return file.is_file() and file.stat().st_size == 0
    return file.seek(0, os.SEEK_END) == 0


@cache
def _be_quiet() -> None:
    """Pillow warns of large images on stderr; they are refused here, in one line."""
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

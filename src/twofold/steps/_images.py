"""Images that somebody holds in their hands: arrays, pictures of Pillow, or paths.

Such an image has no number in a data set, so it gets one from its own pixels. Noise belongs to that number: the same
picture has the same noise in any order, batch or fold, and whether it comes as an array, a picture or a file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twofold.errors import BadData

if TYPE_CHECKING:
    from torch import Tensor

ALLOWED = "uint8 arrays [N, H, W, 3], [N, 3, H, W] or [N, H, W], or lists of arrays, PIL images or paths"
# Images that are in memory at a time, and bytes of them.
GROUP, GROUP_BYTES = 512, 2**28


def listed(images: Any) -> Sequence[Any]:
    """One entry an image; files are not opened yet.

    Args:
        images: uint8 array [N, H, W, 3], [N, 3, H, W] or [N, H, W] (grey), or a list of PIL images, paths, or
            arrays [H, W, 3], [3, H, W] or [H, W].

    Raises:
        BadData: it is something else.
    """
    if isinstance(images, (str, bytes, os.PathLike)):
        raise BadData(f"{os.fspath(images)!r} is one path; images come as a list. Give [path].")
    numbers = _array(images)
    if numbers is not None:
        _check(numbers, "Images are", first=1)
        return list(numbers)
    if not hasattr(images, "__len__") or not hasattr(images, "__iter__"):
        raise BadData(f"Images are a {type(images).__name__}. Give {ALLOWED}.")
    found = list(images)
    if not found:
        raise BadData(f"There are no images. Give {ALLOWED}.")
    for k, image in enumerate(found):
        _check_one(image, k)
    return found


def paths(given: Sequence[Path]) -> list[Path]:
    """The image files named, and those below the folders named; headers are looked at before any work."""
    from twofold.datasets import _decode, _files

    found: list[Path] = []
    for path in given:
        inside = (
            sorted(p for p in path.rglob("*") if p.is_file() and _files.is_image(p.name)) if path.is_dir() else [path]
        )
        if not path.exists():
            raise BadData(f"{path} does not exist. Give image files, or folders of them.")
        if not inside:
            raise BadData(f"{path} holds no images ({', '.join(_decode.SUFFIXES)}). Give a folder with images.")
        found += inside
    for path in found:
        _decode.header(path)
    return found


def groups(images: Sequence[Any]) -> Iterator[list[Tensor]]:
    """The pictures in order, uint8 [3, H, W], some at a time: as many as fit in memory together."""
    some: list[Tensor] = []
    for k, image in enumerate(images):
        some.append(picture(image, k))
        if len(some) == GROUP or sum(p.nbytes for p in some) >= GROUP_BYTES:
            yield some
            some = []
    if some:
        yield some


def picture(image: Any, number: int = 0) -> Tensor:
    """One image as uint8 [3, H, W]; `number` is its place in the list, for errors."""
    import torch
    from PIL import Image

    from twofold.datasets import _decode

    if isinstance(image, (str, os.PathLike)):
        return _decode.decode(Path(image))
    pixels = np.asarray(_decode.rgb(image) if isinstance(image, Image.Image) else image)
    _check(pixels, f"Image {number} is", first=0)
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels, (3, *pixels.shape))
    elif pixels.shape[-1] == 3:
        pixels = pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.array(pixels, order="C"))


def own_number(picture: Tensor) -> int:
    """What stands for an image's index in a data set: 63 bits of a hash of its size and its pixels."""
    told = hashlib.blake2b(str(tuple(picture.shape)).encode(), digest_size=8)
    told.update(picture.numpy().tobytes())
    return int.from_bytes(told.digest(), "big") >> 1


def _array(images: Any) -> NDArray[Any] | None:
    """Pixels that came as one array (of NumPy, torch or whoever converts); None for a list of single images."""
    if not hasattr(images, "__array__") or hasattr(images, "getbands"):
        return None
    found = np.asarray(images)
    return None if found.ndim == 1 and found.dtype.kind in "OU" else found


def _check_one(image: Any, number: int) -> None:
    """Look at an entry's kind, without decoding anything."""
    if isinstance(image, (str, os.PathLike)):
        if not Path(image).is_file():
            what = "is a folder" if Path(image).is_dir() else "does not exist"
            raise BadData(f"{image} {what}. Give paths of image files.")
    elif hasattr(image, "__array__") and not hasattr(image, "getbands"):
        _check(np.asarray(image), f"Image {number} is", first=0)
    elif not hasattr(image, "getbands"):
        raise BadData(f"Image {number} is a {type(image).__name__}. Give {ALLOWED}.")


def _check(pixels: NDArray[Any], what: str, *, first: int) -> None:
    """Type and shape of pixels; an image's own axes begin at `first`."""
    shape = pixels.shape[first:]
    colours = len(shape) == 3 and 3 in (shape[0], shape[-1])
    if pixels.dtype != np.uint8:
        raise BadData(f"{what} of type {pixels.dtype}; uint8, 0 to 255, is needed. Scale and round them first.")
    if not (colours or len(shape) == 2) or not all(pixels.shape):
        raise BadData(f"{what} of shape {pixels.shape}. Give {ALLOWED}.")

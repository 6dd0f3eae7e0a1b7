"""Extra views of each training image, stored beside it: a table of features cannot be augmented later.

A view is stored like a split of its own, `train.flip` or `train.crop1`, with the labels and the index of train; so a
store can get more views at any time, and its key stays as it is. Its noise is its own: (seed, index, draw of the view).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twofold import noise
from twofold.datasets.base import Dataset, Rows
from twofold.errors import BadSetting

if TYPE_CHECKING:
    from torch import Tensor

HELP = "extra views of each training image: flip, crops:K (K random crops, as P1 trains), or both; none: no views"
MOST_CROPS = 99
# Draws of an image's noise that each view has for itself; Reading.draws is at most that.
DRAWS = 10**4
# P1 resizes the shorter side to 256 ... 320 pixels and crops 256 (PAPER.md section 2, "train augmentation").
CROPPED, LARGEST = 256, 320


def splits(views: Sequence[str] | None) -> tuple[str, ...]:
    """The names under which views are stored: `flip,crops:2` is train.flip, train.crop1 and train.crop2.

    Raises:
        BadSetting: something else than `flip` or `crops:K`.
    """
    found = []
    for view in views or ():
        crops = re.fullmatch(r"crops:([1-9]\d?)", view)
        if not crops and view != "flip":
            raise BadSetting(
                f"--views {view!r} means nothing. Give flip, crops:K with K of 1 to {MOST_CROPS}, or both."
            )
        found += [f"train.crop{k}" for k in range(1, int(crops[1]) + 1)] if crops else ["train.flip"]
    return tuple(dict.fromkeys(found))


def rows(dataset: Dataset, split: str, seed: int) -> Rows:
    """The rows of a split, or of a view of train."""
    base, _, view = split.partition(".")
    found = dataset.build(base)
    return Rows(found.labels, found.index, partial(_read, found, split, seed)) if view else found


def first_draw(split: str) -> int:
    """The number of the first noise sample of a split or view; 0 of an image as it is."""
    return DRAWS * _number(split)


def _number(split: str) -> int:
    """0 for a split, 1 for its flip, 2, 3, ... for its crops."""
    view = split.partition(".")[2]
    return 0 if not view else 1 if view == "flip" else 1 + int(view.removeprefix("crop"))


def _read(found: Rows, split: str, seed: int, positions: Sequence[int] | NDArray[np.int64]) -> list[Tensor]:
    images = found.read(positions)
    if split.endswith(".flip"):
        return [image.flip(-1) for image in images]
    index = found.index[np.asarray(positions, dtype=np.int64)]
    return [_crop(image, seed, int(k), _number(split)) for image, k in zip(images, index, strict=True)]


def _crop(image: Tensor, seed: int, index: int, view: int) -> Tensor:
    """A random square of a random 80 to 100 % of the shorter side, every second one mirrored."""
    chance = noise.generator(seed, index, draw=view, purpose=noise.VIEWS)
    height, width = image.shape[-2:]
    side = max(1, round(min(height, width) * CROPPED / chance.integers(CROPPED, LARGEST + 1)))
    top, left = chance.integers(0, height - side + 1), chance.integers(0, width - side + 1)
    cropped = image[:, top : top + side, left : left + side]
    return cropped.flip(-1) if chance.integers(2) else cropped

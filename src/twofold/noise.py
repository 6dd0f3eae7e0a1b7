"""Chance belongs to the image: (seed, image index, draw) -> noise, whatever the batch, order or device count.

Every random number of the project comes from a counter-based generator (Philox 4x64, Salmon et al. 2011) whose
key is the seed and the purpose and whose counter starts at the image's own place. Nothing has to be remembered to
continue after an interruption, and no two images, draws or purposes share a stretch of the stream.
Numbers are drawn on the CPU, since the generators of devices differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

# The purposes, so that no two of them ever see the same numbers.
FEATURES, TRAINING, SAMPLING, SAMPLING_STEPS, ORDER, SHOTS, BOOTSTRAP, VIEWS, FLIPS = range(9)
AUGMENTATION = 15
CLASSES = 20
EDITS = 25
RIVALS = 30


def generator(seed: int, index: int, *, draw: int = 0, purpose: int = FEATURES) -> np.random.Generator:
    """A generator that belongs to one image (or epoch, or class) alone."""
    key = np.array([seed, purpose], dtype=np.uint64)
    # The counter counts blocks of four numbers in its lowest word; image and draw sit in words of their own.
    counter = np.array([0, 0, draw, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def normal(
    seed: int, indices: Iterable[int], shape: Sequence[int], *, draw: int = 0, purpose: int = FEATURES
) -> NDArray[np.float32]:
    """Standard normal noise of each image: float32 [B, *shape]."""
    rows = [
        generator(seed, int(i), draw=draw, purpose=purpose).standard_normal(tuple(shape), dtype=np.float32)
        for i in indices
    ]
    return np.stack(rows) if rows else np.empty((0, *shape), dtype=np.float32)


def torch_generators(seed: int, indices: Iterable[int], *, purpose: int) -> list[torch.Generator]:
    """One CPU generator of torch an image, for libraries that draw their own noise (a list of B)."""
    import torch

    seeds = (generator(seed, int(i), purpose=purpose).integers(0, 2**63 - 1) for i in indices)
    return [torch.Generator().manual_seed(int(s)) for s in seeds]

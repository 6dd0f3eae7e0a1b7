"""The order of images, their steps and their noise while training: functions of (seed, image number) alone.

An image number n counts images seen since training began. So a run that goes on after a kill sees what it would have
seen, and several processes share one batch by taking their part of its numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from twofold import noise


@dataclass(frozen=True)
class Draw:
    """What training needs for some images.

    Attributes:
        rows: int64 [B], positions in the training split.
        steps: int64 [B], noise steps 0..T-1; or float32 [B], standard normal numbers where there are no steps.
        noise: float32 [B, C, h, w].
        chances: float64 [B], uniform in 0..1: an image's label is left out where it is below the dropout.
    """

    rows: NDArray[np.int64]
    steps: NDArray[np.int64] | NDArray[np.float32]
    noise: NDArray[np.float32]
    chances: NDArray[np.float64]


def draw(seed: int, numbers: range, rows: int, shape: tuple[int, ...], steps: int | None) -> Draw:
    """Row, step and noise of each image number."""
    chances = [noise.generator(seed, n, purpose=noise.TRAINING) for n in numbers]
    # In this order: the step of an image is drawn before its noise, and what came to be needed later after it.
    drawn_steps: NDArray[np.int64] | NDArray[np.float32]
    if steps is None:
        drawn_steps = np.array([chance.standard_normal() for chance in chances], dtype=np.float32)
    else:
        drawn_steps = np.array([chance.integers(0, steps) for chance in chances], dtype=np.int64)
    own = [chance.standard_normal(shape, dtype=np.float32) for chance in chances]
    return Draw(
        rows=order(seed, numbers, rows),
        steps=drawn_steps,
        noise=np.stack(own) if own else np.empty((0, *shape), dtype=np.float32),
        chances=np.array([chance.random() for chance in chances], dtype=np.float64),
    )


def order(seed: int, numbers: range, rows: int) -> NDArray[np.int64]:
    """The row of each image number, int64 [B]; every epoch is a fresh permutation of all rows."""
    return np.array([_order(seed, n // rows, rows)[n % rows] for n in numbers], dtype=np.int64)


def rate(seen: int, warmup: int, total: int) -> float:
    """Share of the peak learning rate after `seen` images: linear warm-up, then a half cosine to zero."""
    warm = min(1.0, (seen + 1) / max(warmup, 1))
    return warm * 0.5 * (1 + math.cos(math.pi * min(seen / total, 1.0)))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, rows: int) -> NDArray[np.int64]:
    """The permutation of an epoch; image numbers come in order, so the latest two are enough."""
    return noise.generator(seed, epoch, purpose=noise.ORDER).permutation(rows)

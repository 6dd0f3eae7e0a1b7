"""The mathematics of editing without training: every task is a place to start from and something that is kept.

All images here are divided by the signal: y = x + sigma noise, so that every noise process is the same. Shapes are
[B, C, h, w], images lie in -1..1, sigmas and native steps are [B], one an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.backbones.base import DiffusionBackbone

Keep = Callable[[Tensor], Tensor]
Chance = Callable[[], Tensor]

HALVINGS = 30  # of the interval that a block's shift lies in: below single precision


def walk(
    backbone: DiffusionBackbone, y: Tensor, steps: Tensor, keep: Keep, chance: Chance, *, fresh: float, rounds: int
) -> Tensor:
    """From noise down to a clean image that keeps what is to be kept.

    DDIM's step (Song et al. 2020, arXiv 2010.02502, eq. 12) from an estimate whose known part is put right (DDNM,
    Wang et al. 2022, arXiv 2212.00490, algorithm 1); each step is walked `rounds` times, going back up in between
    (RePaint, Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1).

    Args:
        backbone: the network.
        y: where to begin, [B, C, h, w].
        steps: native steps [S, B], the noisiest first.
        keep: puts a clean estimate right.
        chance: standard normal noise like `y`.
        fresh: share of new noise in each step, 0 (none) to 1 (all).
        rounds: how often each step is walked.
    """
    known = [backbone.coefficients(t) for t in steps]
    sigmas = [spread / signal for signal, spread in known]
    for k, t in enumerate(steps):
        for left in reversed(range(rounds)):
            x = keep(backbone.denoise(known[k][0] * y, t).float())
            if k == len(steps) - 1:
                break
            rest = (y - x) / sigmas[k]
            y = x + sigmas[k + 1] * (math.sqrt(1 - fresh**2) * rest + fresh * chance() if fresh else rest)
            if left:
                y = y + (sigmas[k].square() - sigmas[k + 1].square()).clamp_min(0).sqrt() * chance()
    return x


def chances(generators: Sequence[np.random.Generator], shape: tuple[int, ...], device: torch.device) -> Chance:
    """Noise of which each image draws its own, whatever stands beside it in the batch."""

    def draw() -> Tensor:
        rows = [g.standard_normal(shape, dtype=np.float32) for g in generators]
        return torch.from_numpy(np.stack(rows)).to(device)

    return draw


def in_range(x: Tensor) -> Tensor:
    """Nothing is known but that pixels lie in -1..1."""
    return x.clamp(-1, 1)


def known_pixels(image: Tensor, missing: Tensor) -> Keep:
    """Pixels that are not missing are those of the image; `missing` is bool [h, w]."""
    return lambda x: torch.where(missing, x.clamp(-1, 1), image)


def shrunk(x: Tensor, factor: int) -> Tensor:
    """The mean of each block of factor x factor pixels, the down-sampling that `superres` undoes."""
    return torch.nn.functional.avg_pool2d(x, factor)


def enlarged(x: Tensor, factor: int) -> Tensor:
    """Each pixel as a block: the pseudo-inverse of `shrunk`."""
    return x.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def known_means(small: Tensor, factor: int) -> Keep:
    """Blocks have the means of the small image's pixels, and pixels stay within -1..1.

    Each block is shifted by the one number that does it after clipping; halving finds it, since the mean grows with it.
    """

    def keep(x: Tensor) -> Tensor:
        low, high = torch.full_like(small, -2.0), torch.full_like(small, 2.0)
        x = x.clamp(-1, 1)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = shrunk((x + enlarged(middle, factor)).clamp(-1, 1), factor) < small
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (x + enlarged((low + high) / 2, factor)).clamp(-1, 1)

    return keep


def noise_level(image: NDArray[np.uint8]) -> float:
    """Standard deviation of Gaussian noise in an image [h, w] or [h, w, C], in grey levels.

    The median of the finest diagonal Haar coefficients over 0.6745 (Donoho and Johnstone 1994): edges are few among
    these, noise is in all of them. Small images full of edges look noisier than they are.
    """
    x = image.astype(np.float64)[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    details = (x[::2, ::2] - x[1::2, ::2] - x[::2, 1::2] + x[1::2, 1::2]) / 2
    return float(np.median(np.abs(details)) / 0.6745)

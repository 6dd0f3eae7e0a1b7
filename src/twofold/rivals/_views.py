"""Two random views of an image: a crop, a mirror, and light and colour; functions of (seed, image number, view)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from twofold import noise

CHANCES = 10  # numbers a view is made from
LIGHT = 0.4  # the most that brightness, contrast and colour change by, as a share
GREY = 0.2  # share of the views without colour


def view(x: Tensor, seed: int, numbers: range, which: int, least: float, flip: bool) -> Tensor:
    """Another look at images -1..1 [B, C, h, w].

    Args:
        which: number of the view.
        least: smallest area of a crop, as a share of the image.
        flip: mirror half of them.
    """
    drawn = [noise.generator(seed, n, draw=which, purpose=noise.RIVALS).random(CHANCES) for n in numbers]
    chances = torch.from_numpy(np.stack(drawn).astype(np.float32)).to(x.device).T
    return _lit(_cropped(x, chances[:5], least, flip), chances[5:])


def _cropped(x: Tensor, chances: Tensor, least: float, flip: bool) -> Tensor:
    """A rectangle of an area from `least` to 1 and of sides from 3:4 to 4:3, brought to the whole size."""
    area, ratio, right, down, mirror = chances
    side = (least + (1 - least) * area).sqrt()
    lean = (4 / 3) ** (ratio - 0.5)  # the square root of the sides' ratio
    wide, high = (side * lean).clamp(max=1), (side / lean).clamp(max=1)
    sign = torch.where((mirror < 0.5) & flip, -1.0, 1.0)
    none = torch.zeros_like(wide)
    rows = [wide * sign, none, (1 - wide) * (2 * right - 1)], [none, high, (1 - high) * (2 * down - 1)]
    turn = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = affine_grid(turn, list(x.shape), align_corners=False)
    return grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _lit(x: Tensor, chances: Tensor) -> Tensor:
    """Brightness, contrast and, where there is colour, its strength; some views lose it."""
    bright, contrast, colour, grey, _ = chances.view(CHANCES - 5, -1, 1, 1, 1)
    light, against, strength = (1 + LIGHT * (2 * c - 1) for c in (bright, contrast, colour))
    x = (x + 1) * light - 1
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + against * (x - mean)
    if x.shape[1] > 1:
        shade = x.mean(1, keepdim=True)
        x = shade + torch.where(grey < GREY, 0.0, strength) * (x - shade)
    return x.clamp(-1, 1)

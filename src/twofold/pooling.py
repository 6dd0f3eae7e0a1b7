"""Pooling: from a map or tokens to one row of numbers an image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from twofold.errors import BadSetting

if TYPE_CHECKING:
    from torch import Tensor


def pool(features: Tensor, side: int) -> Tensor:
    """Average adaptively to side x side and flatten; 0 keeps the map (P1: "pool d").

    Args:
        features: maps [B, C, h, w] or tokens [B, L, C] whose L is a square; any float type.
        side: d >= 0; a map smaller than d is an error, never upsampled.

    Returns:
        float32 [B, C*d*d], channel-major as `AdaptiveAvgPool2d` then `flatten` give it; [B, C, h, w] for 0.
    """
    import torch.nn.functional as F

    maps = as_map(features).float()
    if side == 0:
        return maps
    if side > min(maps.shape[-2:]):
        raise BadSetting(
            f"Pool {side} is larger than the map of {maps.shape[-2]}x{maps.shape[-1]}. Give a smaller --pool."
        )
    if side == 1:
        return maps.mean((-2, -1))
    return F.adaptive_avg_pool2d(maps, side).flatten(1)


def as_map(features: Tensor) -> Tensor:
    """Tokens [B, L, C] laid out as a square map [B, C, h, w]; maps pass through."""
    if features.ndim == 4:
        return features
    side = math.isqrt(features.shape[1])
    if side * side != features.shape[1]:
        raise BadSetting(f"{features.shape[1]} tokens do not form a square; they cannot be pooled to a grid.")
    return features.transpose(1, 2).reshape(features.shape[0], -1, side, side)

"""Pooling: shapes, values, refusals."""

from __future__ import annotations

import pytest
import torch

from twofold.errors import BadSetting
from twofold.pooling import pool


def test_pools_average_and_flatten_channel_first() -> None:
    maps = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    assert torch.equal(pool(maps, 1), maps.mean((2, 3)))
    assert torch.equal(pool(maps, 4), maps.flatten(1))
    assert torch.equal(pool(maps, 0), maps)
    assert pool(maps, 2)[0, 0] == maps[0, 0, :2, :2].mean()
    assert pool(maps.bfloat16(), 2).dtype == torch.float32


def test_tokens_are_laid_out_as_a_square() -> None:
    maps = torch.randn(2, 5, 4, 4)
    tokens = maps.flatten(2).transpose(1, 2)
    assert torch.equal(pool(tokens, 2), pool(maps, 2))


def test_never_upsamples() -> None:
    with pytest.raises(BadSetting, match="larger than the map of 4x4"):
        pool(torch.zeros(1, 1, 4, 4), 5)
    with pytest.raises(BadSetting, match="square"):
        pool(torch.zeros(1, 5, 3), 1)

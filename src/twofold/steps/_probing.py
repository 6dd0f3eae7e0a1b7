"""A cheap probe while a network is trained: whether its insides begin to tell classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from twofold import noise, pooling
from twofold.backbones.base import DiffusionBackbone
from twofold.datasets.base import Dataset
from twofold.heads.ridge import Ridge

# Where a diffusion network is read: the middle of the useful range of every model met so far.
SIGMA = 0.18
ROWS = 2000


def accuracy(backbone: DiffusionBackbone, dataset: Dataset, step: float, blocks: Sequence[int] | None = None) -> float:
    """Accuracy on val of a ridge head on blocks read at a step; none: the middle and the first of the decoder."""
    blocks = blocks or (middle(backbone), middle(backbone) + 1)
    x, y = _features(backbone, dataset, step, blocks, "train")
    val = _features(backbone, dataset, step, blocks, "val")
    head = Ridge().fit(x, y, val=val)
    return float((head.predict(val[0]) == val[1]).mean())


def middle(backbone: DiffusionBackbone) -> int:
    """The number of a U-Net's middle block."""
    return next(block.number for block in backbone.blocks if block.name == "mid")


def _features(
    backbone: DiffusionBackbone, dataset: Dataset, step: float, blocks: Sequence[int], split: str
) -> tuple[Any, Any]:
    """Blocks averaged to 2 x 2, one beside the other, and labels."""
    rows = dataset.build(split)
    count = min(len(rows), ROWS)
    x = backbone.preprocess(rows.read(range(count)))
    own = torch.from_numpy(noise.normal(0, rows.index[:count], x.shape[1:]))
    maps = backbone.features(x, step, list(blocks), own)
    table = torch.cat([pooling.pool(m, min(2, m.shape[-1])) for m in maps.values()], 1)
    return table.cpu().numpy(), rows.labels[:count]

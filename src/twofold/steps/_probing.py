"""A cheap probe while a network is trained: whether its insides begin to tell classes apart."""

from __future__ import annotations

from typing import Any

import torch

from twofold import noise, pooling
from twofold.backbones.base import DiffusionBackbone
from twofold.datasets.base import Dataset
from twofold.heads.ridge import Ridge

# Where a diffusion network is read: the middle of the useful range of every model met so far.
SIGMA = 0.18
ROWS = 2000


def accuracy(backbone: DiffusionBackbone, dataset: Dataset, step: float) -> float:
    """Accuracy on val of a ridge head on a U-Net's middle and first decoder block, read at a noise step."""
    x, y = _features(backbone, dataset, step, "train")
    val = _features(backbone, dataset, step, "val")
    head = Ridge().fit(x, y, val=val)
    return float((head.predict(val[0]) == val[1]).mean())


def _features(backbone: DiffusionBackbone, dataset: Dataset, step: float, split: str) -> tuple[Any, Any]:
    """Both blocks, averaged to 2 x 2, and labels."""
    rows = dataset.build(split)
    count = min(len(rows), ROWS)
    x = backbone.preprocess(rows.read(range(count)))
    middle = next(b.number for b in backbone.blocks if b.name == "mid")
    own = torch.from_numpy(noise.normal(0, rows.index[:count], x.shape[1:]))
    maps = backbone.features(x, step, [middle, middle + 1], own)
    table = torch.cat([pooling.pool(m, min(2, m.shape[-1])) for m in maps.values()], 1)
    return table.cpu().numpy(), rows.labels[:count]

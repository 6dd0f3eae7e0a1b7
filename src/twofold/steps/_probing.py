"""A cheap probe while a network is trained: whether its insides begin to tell classes apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from twofold import noise, pooling
from twofold.backbones.base import DiffusionBackbone
from twofold.datasets.base import Dataset, Rows
from twofold.heads.ridge import Ridge
from twofold.steps import _batching, _part

# Where a diffusion network is read: the middle of the useful range of every model met so far.
SIGMA = 0.18
ROWS, BATCH = 2000, 250  # images; fewer a pass where memory holds no more


def accuracy(backbone: DiffusionBackbone, dataset: Dataset, step: float, blocks: Sequence[int] | None = None) -> float:
    """Accuracy on val of a ridge head on blocks read at a step; none: the middle and the first of the decoder."""
    blocks = blocks or (middle(backbone), middle(backbone) + 1)
    size = min(BATCH, _batching.choose(backbone, max(blocks)))
    x, y = _features(backbone, dataset, step, blocks, "train", size)
    val = _features(backbone, dataset, step, blocks, "val", size)
    head = Ridge().fit(x, y, val=val)
    return float((head.predict(val[0]) == val[1]).mean())


def possible(dataset: Dataset) -> bool:
    """Whether there is anything to tell apart: two classes to learn, and images to be judged on."""
    return len(np.unique(dataset.build("train").labels)) > 1 and len(dataset.build("val")) > 0


def middle(backbone: DiffusionBackbone) -> int:
    """The number of a U-Net's middle block, or of the last before the decoder where there is none."""
    return max(block.number for block in backbone.blocks if not block.name.startswith("up."))


def _features(
    backbone: DiffusionBackbone, dataset: Dataset, step: float, blocks: Sequence[int], split: str, size: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Blocks averaged to 2 x 2, one beside the other, and labels."""
    rows = _part.few(dataset.build(split), ROWS)
    parts = [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
    return np.concatenate([_pooled(backbone, rows, part, step, blocks) for part in parts]), rows.labels


def _pooled(
    backbone: DiffusionBackbone, rows: Rows, part: range, step: float, blocks: Sequence[int]
) -> NDArray[np.float32]:
    x = backbone.preprocess(rows.read(part))
    own = torch.from_numpy(noise.normal(0, rows.index[part.start : part.stop], x.shape[1:]))
    maps = backbone.features(x, step, list(blocks), own)
    found: NDArray[np.float32] = (
        torch.cat([pooling.pool(m, min(2, m.shape[-1])) for m in maps.values()], 1).cpu().numpy()
    )
    return found

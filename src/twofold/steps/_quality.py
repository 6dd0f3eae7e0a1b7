"""How good a network in training is, both ways: what its insides tell of val, and how near its samples are to val."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from twofold import noise, pooling
from twofold.analyses import frechet
from twofold.analyses.frechet import Statistics
from twofold.backbones import base as backbones
from twofold.backbones.base import DiffusionBackbone
from twofold.datasets.base import Dataset
from twofold.heads.ridge import Ridge
from twofold.steps import _guidance, _samplers

# Where the cheap probe reads while training: the middle of the useful range of every model met so far.
PROBE_SIGMA = 0.18
PROBE_ROWS = 2000
TAP_SIGMAS = (0.06, 0.18, 0.5)
SAMPLER, STEPS, BATCH = "dpm++", 20, 100
PIXELS = 8  # the images themselves are compared at this side


def probe(backbone: DiffusionBackbone, dataset: Dataset) -> float:
    """Accuracy on val of a ridge head on the middle and first decoder blocks together."""
    middle = _middle(backbone)
    return _accuracy(backbone, dataset, [middle, middle + 1], PROBE_SIGMA)


def best_tap(backbone: DiffusionBackbone, dataset: Dataset) -> tuple[float, str]:
    """The best accuracy on val of a ridge head on one block, and where it was read."""
    middle = _middle(backbone)
    found = [
        (_accuracy(backbone, dataset, [block], sigma), f"b={block}, sigma {sigma:g}")
        for block in (middle, middle + 1)
        for sigma in TAP_SIGMAS
    ]
    return max(found, key=lambda one: one[0])


def _middle(backbone: DiffusionBackbone) -> int:
    return next(block.number for block in backbone.blocks if block.name == "mid")


def _accuracy(backbone: DiffusionBackbone, dataset: Dataset, blocks: Sequence[int], sigma: float) -> float:
    x, y = _features(backbone, dataset, "train", blocks, sigma)
    val = _features(backbone, dataset, "val", blocks, sigma)
    return float((Ridge().fit(x, y, val=val).predict(val[0]) == val[1]).mean())


def _features(
    backbone: DiffusionBackbone, dataset: Dataset, split: str, blocks: Sequence[int], sigma: float
) -> tuple[Any, NDArray[np.int64]]:
    """Blocks averaged to 2 x 2, one beside the other, and labels."""
    rows = dataset.build(split)
    count = min(len(rows), PROBE_ROWS)
    x = backbone.preprocess(rows.read(range(count)))
    own = torch.from_numpy(noise.normal(0, rows.index[:count], x.shape[1:]))
    maps = backbone.features(x, backbone.step(sigma), list(blocks), own)
    table = torch.cat([pooling.pool(m, min(2, m.shape[-1])) for m in maps.values()], 1)
    return table.cpu().numpy(), rows.labels[:count]


class Distance:
    """Frechet distance between samples of a network in training and val, as another network sees both."""

    def __init__(self, features: str, dataset: Dataset, samples: int, seed: int, device: str | None) -> None:
        self._encoder = backbones.load(features, device=device, precision="fp32")
        self._dataset, self._samples, self._seed = dataset, samples, seed

    def of(self, backbone: DiffusionBackbone) -> float:
        """The distance of as many samples as val has images, at most those asked for."""
        count = min(self._samples, len(self._dataset.build("val")))
        parts = (range(start, min(start + BATCH, count)) for start in range(0, count, BATCH))
        made = frechet.statistics(self._seen(_images(backbone, self._seed, part)) for part in parts)
        return frechet.distance(made, self._real)

    @cached_property
    def _real(self) -> Statistics:
        rows = self._dataset.build("val")
        count = min(self._samples, len(rows))
        parts = (range(start, min(start + BATCH, count)) for start in range(0, count, BATCH))
        return frechet.statistics(self._seen(rows.read(part)) for part in parts)

    @torch.inference_mode()
    def _seen(self, images: Any) -> Any:
        last = self._encoder.blocks[-1].number
        maps = pooling.as_map(self._encoder.features(self._encoder.preprocess(images), None, [last])[last])
        side = min(PIXELS, maps.shape[-1]) if self._encoder.parameters == 0 else 1
        return pooling.pool(maps, side).cpu()


@torch.no_grad()
def _images(backbone: DiffusionBackbone, seed: int, numbers: range) -> torch.Tensor:
    """Samples uint8 [B, 3, H, W]; sample i depends on (seed, i) alone, and is of class i modulo their number."""
    device = backbone.placement.device
    x = torch.from_numpy(noise.normal(seed, numbers, backbone.sample_shape, purpose=noise.SAMPLING)).to(device)
    labels = torch.tensor([i % backbone.classes for i in numbers], device=device) if backbone.classes else None
    chances = partial(noise.torch_generators, seed, numbers, purpose=noise.SAMPLING_STEPS)
    steps = min(STEPS, backbone.process.length or STEPS)
    estimate = _guidance.estimate(backbone, labels, 1.0)
    pixels = torch.from_numpy(backbone.pixels(_samplers.walk(backbone, SAMPLER, steps, x, chances, estimate)))
    return pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels[:, None].expand(-1, 3, -1, -1)

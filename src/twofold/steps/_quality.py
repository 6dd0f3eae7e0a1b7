"""How good a network in training is, both ways: what its insides tell of val, and how near its samples are to val."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

import torch

from twofold import noise, pooling
from twofold.analyses import frechet
from twofold.analyses.frechet import Statistics
from twofold.backbones import base as backbones
from twofold.backbones.base import DiffusionBackbone
from twofold.datasets.base import Dataset
from twofold.steps import _batching, _guidance, _part, _probing, _samplers

TAP_SIGMAS = (0.06, 0.18, 0.5)
SAMPLER, STEPS, BATCH = "dpm++", 20, 100
PIXELS = 8  # the images themselves are compared at this side


def best_tap(backbone: DiffusionBackbone, dataset: Dataset) -> tuple[float, str]:
    """The best accuracy on val of a ridge head on one block, and where it was read."""
    middle = _probing.middle(backbone)
    found = [
        (_probing.accuracy(backbone, dataset, backbone.step(sigma), [block]), f"b={block}, sigma {sigma:g}")
        for block in (middle, middle + 1)
        for sigma in TAP_SIGMAS
    ]
    return max(found, key=lambda one: one[0])


class Distance:
    """Frechet distance between samples of a network in training and val, as another network sees both."""

    def __init__(self, features: str, dataset: Dataset, samples: int, seed: int, device: str | None) -> None:
        self._encoder = backbones.load(features, device=device, precision="fp32")
        self._rows, self._seed = _part.few(dataset.build("val"), samples), seed

    def of(self, backbone: DiffusionBackbone) -> float:
        """The distance of as many samples as val has images, at most those asked for."""
        made = frechet.statistics(self._seen(_images(backbone, self._seed, part)) for part in self._parts())
        return frechet.distance(made, self._real)

    @cached_property
    def _real(self) -> Statistics:
        return frechet.statistics(self._seen(self._rows.read(part)) for part in self._parts())

    def _parts(self) -> Iterator[range]:
        count = len(self._rows)
        return (range(start, min(start + BATCH, count)) for start in range(0, count, BATCH))

    @torch.inference_mode()
    def _seen(self, images: Any) -> Any:
        last = self._encoder.blocks[-1].number
        maps = pooling.as_map(self._encoder.features(self._encoder.preprocess(images), None, [last])[last])
        side = min(PIXELS, maps.shape[-1]) if self._encoder.parameters == 0 else 1
        return pooling.pool(maps, side).cpu()


def _images(backbone: DiffusionBackbone, seed: int, numbers: range) -> torch.Tensor:
    """Samples uint8 [B, 3, H, W]; sample i depends on (seed, i) alone, and is of class i modulo their number."""
    size = _batching.choose(backbone, len(backbone.blocks))
    parts = [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return torch.cat([_some_images(backbone, seed, part) for part in parts])


@torch.no_grad()
def _some_images(backbone: DiffusionBackbone, seed: int, numbers: range) -> torch.Tensor:
    """See `_images`; all in one pass a step."""
    device = backbone.placement.device
    x = torch.from_numpy(noise.normal(seed, numbers, backbone.sample_shape, purpose=noise.SAMPLING)).to(device)
    labels = torch.tensor([i % backbone.classes for i in numbers], device=device) if backbone.classes else None
    chances = partial(noise.torch_generators, seed, numbers, purpose=noise.SAMPLING_STEPS)
    steps = min(STEPS, backbone.process.length or STEPS)
    estimate = _guidance.estimate(backbone, labels, 1.0)
    pixels = torch.from_numpy(backbone.pixels(_samplers.walk(backbone, SAMPLER, steps, x, chances, estimate)))
    return pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels[:, None].expand(-1, 3, -1, -1)

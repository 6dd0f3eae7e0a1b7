"""Masked image modelling with a U-Net: patches are blanked and their pixels predicted (Xie et al. 2022, "SimMIM")."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from twofold import noise
from twofold.backbones._network import DiffusionNetwork
from twofold.errors import BadSetting
from twofold.rivals._net import Whole
from twofold.rivals.base import Rival

BLANK = 0.0  # mid grey


@final
class Blanked(Rival):
    """One player: the whole U-Net."""

    def __init__(self, backbone: DiffusionNetwork, *, seed: int, patch: int | None, share: float) -> None:
        side = backbone.sample_shape[-1]
        self._patch = patch or max(2, side // 8)
        if side % self._patch or self._patch == side:
            raise BadSetting(f"--patch {self._patch} does not divide images of {side} pixels. Give a smaller divisor.")
        self._seed, self._share, self._across = seed, share, side // self._patch
        self._net = Whole(backbone)
        self.players = {"network": self._net}

    def loss(self, player: str, x: Tensor, numbers: range) -> Tensor:
        """Mean square error over the blanked pixels; see `Rival.loss`."""
        hidden = self._hidden(numbers).to(x.device)
        missed: Tensor = (self._net(torch.where(hidden, BLANK, x)) - x).square() * hidden
        return missed.sum() / (hidden.sum() * x.shape[1])

    def _hidden(self, numbers: range) -> Tensor:
        """Which pixels are blanked, bool [B, 1, h, w]: of every image the same number of patches, one at least."""
        patches = self._across**2
        count = min(max(1, round(self._share * patches)), patches - 1)
        chances = [noise.generator(self._seed, n, purpose=noise.RIVALS).random(patches) for n in numbers]
        hidden = np.stack(chances).argsort(1).argsort(1) < count
        grid = torch.from_numpy(hidden).view(len(numbers), 1, self._across, self._across)
        return grid.repeat_interleave(self._patch, 2).repeat_interleave(self._patch, 3)

"""SimCLR: two views of an image are to be more alike than views of others (Chen et al. 2020)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from twofold.backbones._network import DiffusionNetwork
from twofold.rivals import _views
from twofold.rivals._net import Encoder
from twofold.rivals.base import Rival

PROJECTED = 64  # numbers in which views are compared


@final
class Alike(Rival):
    """One player: the U-Net's encoder with a projection of two layers behind it."""

    def __init__(self, backbone: DiffusionNetwork, *, seed: int, temperature: float, crop: float, flip: bool) -> None:
        self._seed, self._temperature, self._crop, self._flip = seed, temperature, crop, flip
        encoder = Encoder(backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            projection = nn.Linear(encoder.width, encoder.width), nn.ReLU(), nn.Linear(encoder.width, PROJECTED)
        self._net = nn.Sequential(encoder, *projection)
        self.players = {"encoder": self._net}

    def loss(self, player: str, x: Tensor, numbers: range) -> Tensor:
        """See `Rival.loss`."""
        views = [_views.view(x, self._seed, numbers, k, self._crop, self._flip) for k in (0, 1)]
        return nt_xent(self._net(torch.cat(views)), self._temperature)


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding an image's other view by cosine among all others (Chen et al. 2020, eq. 1).

    Args:
        z: [2 B, D]; rows k and B + k are views of one image.
        temperature: of the softmax.
    """
    z = normalize(z, dim=1)
    likeness = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    other = torch.arange(len(z), device=z.device).roll(len(z) // 2)
    return cross_entropy(likeness.masked_fill(itself, -torch.inf), other)

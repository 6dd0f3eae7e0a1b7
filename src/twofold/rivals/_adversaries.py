"""A generator against the U-Net's encoder, which learns to tell its images from real ones (Goodfellow et al. 2014)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from twofold import noise
from twofold.backbones._network import DiffusionNetwork
from twofold.rivals import _made
from twofold.rivals._net import Encoder
from twofold.rivals.base import Rival

NUDGE = 0.1  # standard deviation of the noise by which the penalty feels a slope
JUDGED, MAKING, NUDGED, NUDGED_TOO = range(4)  # what an image's numbers are drawn for


@final
class Adversaries(Rival):
    """Each image is judged beside one of the other kind, and the slope of the judge is held small at both.

    The losses are relativistic pairs with both zero-centred penalties, R1 and R2 (Huang et al. 2024, arXiv
    2501.05441), which do not collapse where the plain loss does. The slope is felt as the change of the score under a
    little noise, E (D(x + s n) - D(x))^2 / s^2, which is |grad D|^2 for a small s (Lin et al. 2025, arXiv 2501.08316):
    fused attention has no second derivative.
    """

    betas = (0.0, 0.99)

    def __init__(self, backbone: DiffusionNetwork, *, seed: int, penalty: float, samples: int) -> None:
        self._backbone, self._seed, self._penalty, self._samples = backbone, seed, penalty, samples
        encoder = Encoder(backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.discriminator = nn.Sequential(encoder, nn.SiLU(), nn.Linear(encoder.width, 1))
            self.generator = _made.Generator(backbone)
        self.players = {"discriminator": self.discriminator, "generator": self.generator}

    def loss(self, player: str, x: Tensor, numbers: range) -> Tensor:
        """See `Rival.loss`."""
        if player == "generator":
            with torch.no_grad():  # the generator does not move what real images score
                real = self.discriminator(x)
            wanted: Tensor = softplus(real - self.discriminator(self._made(x, numbers, MAKING))).mean()
            return wanted
        with torch.no_grad():
            made = self._made(x, numbers, JUDGED)
        shown = torch.cat([x, made])
        beside = shown + NUDGE * torch.cat([self._nudge(x, numbers, draw) for draw in (NUDGED, NUDGED_TOO)])
        scores, nudged = self.discriminator(torch.cat([shown, beside])).chunk(2)
        real, false = scores.chunk(2)
        slope: Tensor = ((nudged - scores) / NUDGE).square().mean()
        told: Tensor = softplus(false - real).mean()
        # The mean is over real and made images together: R1 and R2 have half of it each.
        return told + self._penalty * slope

    def _nudge(self, x: Tensor, numbers: range, draw: int) -> Tensor:
        return torch.from_numpy(noise.normal(self._seed, numbers, x.shape[1:], draw=draw, purpose=noise.RIVALS)).to(x)

    def leave(self, folder: Path) -> dict[str, Any]:
        """Images of the averaged generator."""
        _made.write(self.generator, self._backbone, folder / "samples", self._samples, self._seed)
        return {"samples": str(folder / "samples" / "images")}

    def _made(self, x: Tensor, numbers: range, draw: int) -> Tensor:
        z = noise.normal(self._seed, numbers, (_made.NOISE,), draw=draw, purpose=noise.RIVALS)
        made: Tensor = self.generator(torch.from_numpy(z).to(x.device))
        return made

"""What a network is trained to predict, and the loss that asks for it: one class for each family."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, final

import torch
from diffusers import DDPMScheduler, EDMEulerScheduler, UNet2DModel
from torch import Tensor

from twofold.backbones import edm, unet
from twofold.backbones._network import DiffusionNetwork
from twofold.backbones.base import Placement

# Asks the network: (its input [B, C, h, w], its time [B]) -> what it gives, [B, C or 2 C, h, w].
Ask = Callable[[Tensor, Tensor], Tensor]
SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction"}
BOUND_WEIGHT = 0.001  # of the variational bound in the hybrid loss (Nichol and Dhariwal 2021, section 3.1)


class Objective(ABC):
    """A family's noise, prediction and loss.

    Attributes:
        steps: how many whole noise steps there are; None: levels are made of a standard normal number.
        outputs: channels that the network gives for each that it takes.
        scheduler: what is saved beside the network.
    """

    steps: int | None
    outputs: int
    scheduler: Any

    @abstractmethod
    def backbone(self, network: UNet2DModel, placement: Placement) -> DiffusionNetwork:
        """The backbone of the network in training."""

    @abstractmethod
    def loss(self, ask: Ask, backbone: DiffusionNetwork, x: Tensor, drawn: Tensor, eps: Tensor) -> Tensor:
        """The mean loss of some images.

        Args:
            ask: calls the network in training.
            backbone: see `Objective.backbone`.
            x: images -1..1, float [B, C, h, w].
            drawn: noise steps int64 [B], or standard normal numbers float32 [B] where `steps` is None.
            eps: standard normal noise like `x`.
        """


@final
class Denoising(Objective):
    """Epsilon or v on a ladder of whole steps (Ho et al. 2020, eq. 14; Salimans and Ho 2022, section 4).

    With a learned variance the network also places the logarithm of the variance of each backward step between its two
    bounds, and the loss is L_simple + 0.001 L_vlb (Nichol and Dhariwal 2021, eq. 15 and 16).
    """

    def __init__(self, predicts: str, schedule: str, steps: int, learned_variance: bool) -> None:
        self.steps, self.outputs, self.velocity = steps, 1 + learned_variance, predicts == "v"
        more: dict[str, Any] = {"variance_type": "learned_range"} if learned_variance else {}
        self.scheduler = DDPMScheduler(
            steps, beta_start=1e-4, beta_end=0.02, beta_schedule=SCHEDULES[schedule],
            prediction_type=PREDICTIONS[predicts], **more,
        )  # fmt: skip

    def backbone(self, network: UNet2DModel, placement: Placement) -> DiffusionNetwork:
        """See `Objective.backbone`."""
        return unet.of(network, self.scheduler, placement, name="it")

    def loss(self, ask: Ask, backbone: DiffusionNetwork, x: Tensor, drawn: Tensor, eps: Tensor) -> Tensor:
        """See `Objective.loss`."""
        x_t = backbone.noised(x, drawn, eps)
        signal, spread = backbone.coefficients(drawn)
        given = ask(x_t, drawn).float()
        predicted = given[:, : x.shape[1]]
        target = signal * eps - spread * x if self.velocity else eps
        simple: Tensor = (predicted - target).square().mean()
        if self.outputs == 1:
            return simple
        # The bound teaches the variance alone.
        clean = backbone.parts.prediction(x_t, predicted.detach(), signal, spread)
        bound = self._bound(x - clean, x, clean, given[:, x.shape[1] :], drawn)
        return simple + BOUND_WEIGHT * len(self.scheduler.betas) * bound

    def _bound(self, error: Tensor, x: Tensor, clean: Tensor, place: Tensor, steps: Tensor) -> Tensor:
        """The mean term of the variational bound, in bits a value; `place` is -1 for the least variance, 1 for most."""
        betas, kept = (v.to(error.device) for v in (self.scheduler.betas, self.scheduler.alphas_cumprod))
        before = torch.cat([torch.ones_like(kept[:1]), kept[:-1]])
        least = betas * (1 - before) / (1 - kept)
        # The first step's least variance is 0; as in the paper its logarithm is the next step's.
        least = torch.cat([least[1:2], least[1:]])
        weight = before.sqrt() * betas / (1 - kept)
        low, high, weight = (v[steps].view(-1, 1, 1, 1) for v in (least.log(), betas.log(), weight))
        log = low + (place + 1) / 2 * (high - low)
        apart = 0.5 * (log - low - 1 + (low - log).exp() + (weight * error).square() * (-log).exp())
        first = (steps == 0).view(-1, 1, 1, 1)
        return torch.where(first, -log_chance(x, clean, log), apart).mean() / math.log(2)


def log_chance(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Logarithm of a Gaussian's mass in the grey level of each value in -1..1 (Ho et al. 2020, eq. 13)."""
    scale = (-log_variance / 2).exp()
    above = torch.special.ndtr((x - mean + 1 / 255) * scale)
    below = torch.special.ndtr((x - mean - 1 / 255) * scale)
    above, below = torch.where(x > 0.999, 1.0, above), torch.where(x < -0.999, 0.0, below)
    return (above - below).clamp_min(1e-12).log()


@final
class Karras(Objective):
    """EDM (Karras et al. 2022, table 1): ln(sigma) is normal, and the weighted loss is of unit size at every sigma."""

    P_MEAN, P_STD, DATA = -1.2, 1.2, 0.5

    def __init__(self) -> None:
        self.steps, self.outputs = None, 1
        self.scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=self.DATA)

    def backbone(self, network: UNet2DModel, placement: Placement) -> DiffusionNetwork:
        """See `Objective.backbone`."""
        return edm.of(network, self.scheduler, placement, name="it")

    def loss(self, ask: Ask, backbone: DiffusionNetwork, x: Tensor, drawn: Tensor, eps: Tensor) -> Tensor:
        """See `Objective.loss`."""
        sigma = (self.P_MEAN + self.P_STD * drawn).exp()
        signal, spread = backbone.coefficients(sigma)
        x_t = signal * x + spread * eps
        asked = edm.seen(x_t, sigma, self.DATA)
        clean = backbone.parts.prediction(x_t, ask(asked["sample"], asked["timestep"]).float(), signal, spread)
        # lambda(sigma) = 1 / c_out^2.
        weight = (spread.square() + self.DATA**2) / (spread * self.DATA).square()
        return (weight * (clean - x).square()).mean()


def make(name: str, schedule: str, steps: int, learned_variance: bool) -> Objective:
    """The objective of this name: `epsilon`, `v` or `edm`."""
    return Karras() if name == "edm" else Denoising(name, schedule, steps, learned_variance)

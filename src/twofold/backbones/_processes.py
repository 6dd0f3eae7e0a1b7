"""How families of diffusion models add noise: x_t = signal(t) x + spread(t) noise, t in the family's own unit."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

from twofold.errors import BadSetting
from twofold.records import number_text

if TYPE_CHECKING:
    from torch import Tensor

LEAST_SIGMA, MOST_SIGMA, RHO = 0.002, 80.0, 7.0


class Process(ABC):
    """A family's noise, from nearly none to nothing but.

    Attributes:
        allowed: the native steps that exist, in words.
        least, most: the steps with the least and the most noise.
        length: how many steps there are; None where there is one for every noise.
    """

    allowed: str
    least: float
    most: float
    length: int | None = None

    @abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """signal(t) and spread(t), [B] each, of native steps [B]."""

    @abstractmethod
    def holds(self, t: float) -> bool:
        """Whether t is a native step."""

    def own_steps(self, count: int) -> list[float]:
        """`count` steps from the noisiest down, as far apart as this family's own samplers take them."""
        return self.karras_steps(count)

    def karras_steps(self, count: int, begin: float | None = None) -> list[float]:
        """The steps of `count` sigmas from `begin` (none: the noisiest) down, equally far apart in their seventh root.

        Karras et al. 2022 (arXiv 2206.00364), eq. 5 and table 1, within what there is; several may be the same step.
        """
        least = self.sigma(self.least)
        high = min(self.sigma(self.most), MOST_SIGMA) if begin is None else max(begin, least)
        low = max(least, LEAST_SIGMA)
        start, end = high ** (1 / RHO), low ** (1 / RHO)
        return [self.step((start + (end - start) * k / max(count - 1, 1)) ** RHO) for k in range(count)]

    @abstractmethod
    def nearest(self, sigma: float) -> float:
        """The native step whose noise-to-signal ratio is nearest to sigma > 0."""

    def sigma(self, t: float) -> float:
        """Noise-to-signal ratio spread(t) / signal(t)."""
        import torch

        signal, spread = self.coefficients(torch.tensor([t], dtype=torch.float64))
        return float(spread / signal)

    def step(self, sigma: float) -> float:
        """See `nearest`; refuses what is no ratio."""
        if not 0 < sigma < math.inf:
            raise BadSetting(f"sigma must be above 0 and finite, not {number_text(sigma)}.")
        return self.nearest(sigma)


@final
class Ladder(Process):
    """Whole steps 0..T-1: sqrt(abar_t) x + sqrt(1 - abar_t) noise (Ho et al. 2020, eq. 4).

    Args:
        betas: the variances added at each step, [T].
    """

    def __init__(self, betas: Tensor) -> None:
        # Kept in double precision: sqrt(1 - abar) at t = 0 loses digits in single.
        self.signal = (1 - betas.double()).cumprod(0)
        self.length: int = len(betas)
        self.least, self.most = 0.0, float(self.length - 1)
        self.allowed = f"whole numbers 0 to {self.length - 1}"
        self._sigmas = ((1 - self.signal) / self.signal).sqrt()

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar_t), sqrt(1 - abar_t)."""
        import torch

        # Apple's GPUs have no double precision.
        signal = self.signal.to(t.device, torch.float32 if t.device.type == "mps" else torch.float64)[t.long()]
        return signal.sqrt(), (1 - signal).sqrt()

    def holds(self, t: float) -> bool:
        """Whole numbers below T."""
        return float(t).is_integer() and 0 <= t < self.length

    def own_steps(self, count: int) -> list[float]:
        """Equally far apart from the last, noisiest step, as training began (Lin et al. 2023, table 2, "trailing")."""
        return [float(round(self.length * (1 - k / count)) - 1) for k in range(count)]

    def nearest(self, sigma: float) -> float:
        """Nearest in ratio."""
        return float((self._sigmas.log() - math.log(sigma)).abs().argmin())


class _Spread(Process):
    """x + scale t noise: signal keeps its size, so the ratio is the spread.

    Attributes:
        scale: how large noise of t = 1 is on images in -1..1.
    """

    scale: float

    def __init__(self, least: float, most: float) -> None:
        """Of the range that the network was trained on."""
        self.least, self.most = least, most
        self.allowed = f"standard deviations {number_text(least)} to {number_text(most)}"

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """1, scale t."""
        return t * 0 + 1, self.scale * t

    def holds(self, t: float) -> bool:
        """Within the range that the network was trained on."""
        return self.least <= t <= self.most

    def nearest(self, sigma: float) -> float:
        """Sigma / scale, held to the range."""
        return min(max(sigma / self.scale, self.least), self.most)


@final
class Exploding(_Spread):
    """t is the noise's own standard deviation on images in 0..1 (Song et al. 2021, score-based SDEs, "VE")."""

    scale = 2.0

    def own_steps(self, count: int) -> list[float]:
        """A geometric sequence (Song et al. 2021, appendix C)."""
        ratio = self.least / self.most
        return [max(self.most * ratio ** (k / max(count - 1, 1)), self.least) for k in range(count)]


@final
class Sigma(_Spread):
    """t is the noise's own standard deviation on images in -1..1 (EDM, Karras et al. 2022)."""

    scale = 1.0


@final
class Flow(Process):
    """t in 0..1, (1 - t) x + t noise (rectified flow, Liu et al. 2023; Esser et al. 2024, eq. 12).

    Args:
        shift: how much nearer to noise samplers take their steps (Esser et al. 2024, eq. 23); 1: equally far apart.
    """

    # The ends are the clean image and noise without a signal; the networks were trained between them.
    least, most = 1e-4, 0.9999

    def __init__(self, shift: float = 1.0) -> None:
        self.shift = shift
        self.allowed = f"{self.least:g} to {self.most:g}"

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """1 - t, t."""
        return 1 - t, t

    def holds(self, t: float) -> bool:
        """Strictly between image and noise."""
        return self.least <= t <= self.most

    def own_steps(self, count: int) -> list[float]:
        """Equally far apart, then shifted towards noise."""
        even = (1 - k / count for k in range(count))
        shifted = (self.shift * t / (1 + (self.shift - 1) * t) for t in even)
        return [min(max(t, self.least), self.most) for t in shifted]

    def nearest(self, sigma: float) -> float:
        """Sigma / (1 + sigma), held to the range."""
        return min(max(sigma / (1 + sigma), self.least), self.most)


# From what a network predicts to its estimate of the clean image; signal and spread are of the step, [B, 1, 1, 1].


def from_noise(x_t: Tensor, predicted: Tensor, signal: Tensor, spread: Tensor) -> Tensor:
    """Epsilon prediction (Ho et al. 2020, eq. 15)."""
    return (x_t - spread * predicted) / signal


def from_velocity(x_t: Tensor, predicted: Tensor, signal: Tensor, spread: Tensor) -> Tensor:
    """V = signal noise - spread x (Salimans and Ho 2022, eq. 11)."""
    return signal * x_t - spread * predicted


def from_clean(x_t: Tensor, predicted: Tensor, signal: Tensor, spread: Tensor) -> Tensor:
    """The network predicts the clean image itself."""
    return predicted


def from_flow(x_t: Tensor, predicted: Tensor, signal: Tensor, spread: Tensor) -> Tensor:
    """The network predicts noise - x (Esser et al. 2024, section 2)."""
    return x_t - spread * predicted


def from_unit_score(x_t: Tensor, predicted: Tensor, signal: Tensor, spread: Tensor) -> Tensor:
    """The gradient of the log density of images in 0..1; twice what it is for images in -1..1 (Tweedie's formula)."""
    return x_t + spread.square() / 2 * predicted


PREDICTIONS = {"epsilon": from_noise, "v_prediction": from_velocity, "sample": from_clean}

"""Samplers: who removes the noise, in which steps. All are diffusers' schedulers, and each fits every noise process.

The native steps that a sampler visits are made a ladder of their own: rung k has the signal a_k = 1 / (1 + sigma_k^2),
and betas are what lies between rungs. In these coordinates (x = sqrt(a) clean + sqrt(1 - a) noise) every process
looks the same, whatever its own unit and scale, and any scheduler of whole steps walks down it.

name    scheduler                  visits
ddpm    DDPMScheduler              the family's own steps; draws noise, with the variance that the network learned
ddim    DDIMScheduler              the family's own steps; on a flow this is Euler's method
heun    HeunDiscreteScheduler      the family's own steps, two passes each but the last
dpm++   DPMSolverMultistep...      Karras's sigmas, rounded to native steps; second order from one pass each
edm     HeunDiscreteScheduler      Karras's sigmas, rounded to native steps; two passes each but the last
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold import runs
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.errors import BadModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The clean image [B, C, h, w] in x_t at a native step t, and what the network says of the variance, if it does.
Estimate = Callable[["Tensor", float], tuple["Tensor", "Tensor | None"]]


@dataclass(frozen=True)
class Sampler:
    """One way to remove noise.

    Attributes:
        scheduler: its class in diffusers.
        settings: what it is told beside the ladder.
        karras: whether it visits Karras's sigmas in place of the family's own steps.
        draws: whether its steps draw noise.
        order: forward passes a step; the last takes one.
    """

    scheduler: str
    settings: dict[str, Any] = field(default_factory=dict)
    karras: bool = False
    draws: bool = False
    order: int = 1


SAMPLERS = {
    "ddpm": Sampler("DDPMScheduler", {"variance_type": "learned_range", "clip_sample": False}, draws=True),
    "ddim": Sampler("DDIMScheduler", {"clip_sample": False}),
    "heun": Sampler("HeunDiscreteScheduler", order=2),
    "dpm++": Sampler("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}, karras=True),
    "edm": Sampler("HeunDiscreteScheduler", karras=True, order=2),
}


def generating(model: str, backbone: Backbone) -> DiffusionBackbone:
    """The backbone, which must be one that can generate.

    Raises:
        BadModel: it is no diffusion model, or a rival, whose U-Net learned something else than to remove noise.
    """
    name = backbones.parse(model)
    folder = Path(name.argument)
    if name.scheme == "run" and (folder / "config.toml").is_file():
        verb = runs.read_config(folder)["verb"]
        if verb != "pretrain":
            raise BadModel(f"{model} cannot generate: {verb} did not teach it to remove noise. Give a run of pretrain.")
    if not isinstance(backbone, DiffusionBackbone):
        raise BadModel(
            f"{model} cannot generate: it is not a diffusion model. Give run:DIR, adm:FILE.pt or "
            "diffusers:DIR_OR_HUB_ID."
        )
    return backbone


def visited(backbone: DiffusionBackbone, name: str, steps: int) -> list[float]:
    """The native steps that a sampler visits, from little noise to much; steps that round to the same are one."""
    process = backbone.process
    found = process.karras_steps(steps) if SAMPLERS[name].karras else process.own_steps(steps)
    return sorted(set(found))


def walk(
    backbone: DiffusionBackbone,
    name: str,
    steps: int,
    x: Tensor,
    chances: Callable[[], list[torch.Generator]],
    estimate: Estimate,
) -> Tensor:
    """From noise to images.

    Args:
        backbone: whose noise is removed.
        name: of the sampler.
        steps: how many noise steps it visits.
        x: standard normal noise [B, C, h, w].
        chances: gives one generator an image, for samplers that draw noise.
        estimate: the network.

    Returns:
        clean images, float [B, C, h, w], as `backbone.pixels` takes them.
    """
    rungs = visited(backbone, name, steps)
    scheduler = _scheduler(backbone, name, rungs)
    bounded = backbone.preprocessing["range"] == "-1..1"  # latents have no ends to clip to
    drawn = {"generator": chances()} if SAMPLERS[name].draws else {}
    scales = _scales(backbone, rungs)
    x = x * scheduler.init_noise_sigma
    for rung in scheduler.timesteps:
        clean, variance = estimate(scheduler.scale_model_input(x, rung) * scales[int(rung)], rungs[int(rung)])
        clean = clean.clamp(-1, 1) if bounded else clean
        told = _with_variance(backbone, clean, variance) if SAMPLERS[name].draws else clean
        x = scheduler.step(told, rung, x, **drawn).prev_sample
    return x


def _with_variance(backbone: DiffusionBackbone, clean: Tensor, variance: Tensor | None) -> Tensor:
    """What DDPM's scheduler takes: the clean image, and beside it where in its range the variance lies.

    Nichol and Dhariwal 2021, eq. 15: from -1, the posterior's own variance, to 1, the step's beta; networks that
    learned none were trained for one of the two.
    """
    import torch

    large = str(backbone.schedule.get("variance_type", "")).startswith("fixed_large")
    fixed = torch.full_like(clean, 1.0 if large else -1.0)
    return torch.cat([clean, fixed if variance is None else variance], 1)


def _scales(backbone: DiffusionBackbone, rungs: Sequence[float]) -> list[float]:
    """From the ladder's coordinates to the process's own: the size of an image of unit variance at each rung."""
    signal, spread = _coefficients(backbone, rungs)
    return (signal**2 + spread**2).sqrt().tolist()


def _coefficients(backbone: DiffusionBackbone, rungs: Sequence[float]) -> tuple[Tensor, Tensor]:
    import torch

    signal, spread = backbone.process.coefficients(torch.tensor(rungs, dtype=torch.float64))
    return signal.double(), spread.double()


def _scheduler(backbone: DiffusionBackbone, name: str, rungs: Sequence[float]) -> Any:
    """A scheduler of diffusers whose ladder is the rungs alone, told that it is given estimates of the clean image."""
    import diffusers
    import torch

    signal, spread = _coefficients(backbone, rungs)
    share = signal**2 / (signal**2 + spread**2)
    betas = 1 - share / torch.cat([torch.ones(1, dtype=torch.float64), share[:-1]])
    sampler = SAMPLERS[name]
    with warnings.catch_warnings():
        # Some of them hand tensors to NumPy in a way that NumPy will not have for ever.
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler = getattr(diffusers, sampler.scheduler)(
            num_train_timesteps=len(rungs), trained_betas=betas.tolist(), prediction_type="sample",
            timestep_spacing="trailing", **sampler.settings,
        )  # fmt: skip
        scheduler.set_timesteps(len(rungs))
    return scheduler

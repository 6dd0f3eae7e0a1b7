"""Pixel-space U-Nets under EDM's preconditioning (`twofold pretrain --objective edm`): t is sigma itself.

Karras et al. 2022 (arXiv 2206.00364), table 1, last column. The network F sees c_in x_t and ln(sigma) / 4; the clean
image is c_skip x_t + c_out F. The folder is a `ConsistencyModelPipeline` with an `EDMEulerScheduler`: no pipeline of
diffusers is called after EDM, but this one asks its scheduler to scale what the network sees, takes labels, and leaves
everything else to the scheduler, so that diffusers alone samples it (with `num_inference_steps` above 1).
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import ConsistencyModelPipeline, EDMEulerScheduler, UNet2DModel
from torch import Tensor

from twofold.backbones import _folders, _unet
from twofold.backbones._codecs import Pixels
from twofold.backbones._network import DiffusionNetwork, Parts, Prediction
from twofold.backbones._processes import Sigma
from twofold.backbones.base import Placement
from twofold.errors import BadModel
from twofold.records import ModelName

SCHEMES = ("run", "diffusers")
PIPELINES = ("ConsistencyModelPipeline",)
SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")


def of(
    unet: UNet2DModel,
    scheduler: EDMEulerScheduler,
    placement: Placement,
    *,
    name: str,
    identity: str = "",
    class_names: tuple[str, ...] = (),
) -> DiffusionNetwork:
    """The backbone of a network that is in memory already."""
    config = scheduler.config
    data = float(config.sigma_data)
    parts = Parts(
        network=unet,
        places=_unet.places(unet),
        arguments=_unet.conditioned(unet, lambda x, t: seen(x, t, data)),
        process=Sigma(float(config.sigma_min), float(config.sigma_max)),
        prediction=preconditioned(data),
        codec=Pixels(int(unet.config.sample_size), int(unet.config.in_channels)),
        schedule={},
        classes=int(unet.config.num_class_embeds or 0),
        class_names=class_names,
        pipeline=lambda: ConsistencyModelPipeline(_unet.without_null_class(unet), scheduler),
        compiled=_unet.inner(unet),
    )
    return DiffusionNetwork(parts, placement, name=name, identity=identity)


def build(name: ModelName, placement: Placement) -> DiffusionNetwork:
    """Load a pipeline folder; with `?untrained` its network with fresh random weights of a fixed seed."""
    folder = _folders.local(name, weights=not (placement.weightless or name.untrained))
    scheduler = _folders.scheduler(EDMEulerScheduler, folder)
    _check(name, folder, scheduler)
    unet: UNet2DModel = _folders.part(UNet2DModel, folder / "unet", placement, untrained=name.untrained)
    identity = "" if placement.weightless else _folders.identity(folder, ("unet", "scheduler"), name.untrained)
    names = _folders.class_names(folder, int(unet.config.num_class_embeds or 0))
    return of(unet, scheduler, placement, name=str(name), identity=identity, class_names=names)


def _check(name: ModelName, folder: Path, scheduler: EDMEulerScheduler) -> None:
    """Refuse consistency models, which have the same pipeline, and what else is not preconditioned as here."""
    # In the file, since what is loaded calls itself by its own class.
    found = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8")).get("_class_name")
    if found not in SCHEDULERS:
        raise BadModel(f"{name} has the scheduler {found}; {' and '.join(SCHEDULERS)} can be read. Give another model.")
    if scheduler.config.prediction_type != "epsilon":
        kind = scheduler.config.prediction_type
        raise BadModel(f"{name} predicts {kind!r} under EDM; 'epsilon' can be read. Give another model.")


def seen(x_t: Tensor, sigma: Tensor, data: float) -> dict[str, Tensor]:
    """What the network is called with: c_in x_t and c_noise = ln(sigma) / 4.

    Args:
        x_t: [B, C, h, w], sigma: [B], data: standard deviation of the images.
    """
    sigma = sigma.float()
    c_in = (sigma.square() + data**2).rsqrt().view(-1, 1, 1, 1)
    return {"sample": (x_t * c_in).to(x_t.dtype), "timestep": sigma.log() / 4}


def preconditioned(data: float) -> Prediction:
    """From the network's output to the clean image, c_skip x_t + c_out F, for images of this standard deviation."""

    def clean(x_t: Tensor, predicted: Tensor, signal: Tensor, spread: Tensor) -> Tensor:
        total = spread.square() + data**2
        return data**2 / total * x_t + spread * data / torch.sqrt(total) * predicted

    return clean

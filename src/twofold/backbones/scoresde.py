"""Score-based U-Nets of diffusers with exploding variance (`ScoreSdeVePipeline`): t is the noise's own sigma.

Song et al. 2021 (arXiv 2011.13456). The networks see images in 0..1 and predict the score there; here, as everywhere,
images are in -1..1, so a native step t is a noise-to-signal ratio of 2 t.
"""

from __future__ import annotations

import torch
from diffusers import ScoreSdeVeScheduler, UNet2DModel

from twofold.backbones import _folders, _unet
from twofold.backbones._codecs import Pixels
from twofold.backbones._network import DiffusionNetwork, Parts
from twofold.backbones._processes import Exploding, from_unit_score
from twofold.backbones.base import Placement
from twofold.records import ModelName

SCHEMES = ("diffusers",)
PIPELINES = ("ScoreSdeVePipeline",)


def build(name: ModelName, placement: Placement) -> DiffusionNetwork:
    """Load a pipeline folder."""
    folder = _folders.local(name, weights=not (placement.weightless or name.untrained))
    unet: UNet2DModel = _folders.part(UNet2DModel, folder / "unet", placement, untrained=name.untrained)
    scheduler = _folders.scheduler(ScoreSdeVeScheduler, folder)
    config = scheduler.config
    parts = Parts(
        network=unet,
        places=_unet.places(unet),
        arguments=_unet.conditioned(unet, lambda x, t: {"sample": (x + 1) / 2, "timestep": t.to(torch.float32)}),
        process=Exploding(float(config.sigma_min), float(config.sigma_max)),
        prediction=from_unit_score,
        codec=Pixels(int(unet.config.sample_size), int(unet.config.in_channels)),
        schedule={},
        classes=int(unet.config.num_class_embeds or 0),
        compiled=_unet.inner(unet),
    )
    identity = "" if placement.weightless else _folders.identity(folder, ("unet", "scheduler"), name.untrained)
    return DiffusionNetwork(parts, placement, name=str(name), identity=identity)

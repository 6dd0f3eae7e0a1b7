"""Pixel-space U-Nets of diffusers (`UNet2DModel`): own runs, and DDPM or DDIM pipelines."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file

from twofold.backbones import _folders, _unet
from twofold.backbones._network import DiffusionNetwork
from twofold.backbones.base import Placement
from twofold.errors import BadModel
from twofold.records import ModelName

SCHEMES = ("run", "diffusers")
PIPELINES = ("DDPMPipeline", "DDIMPipeline")


def of(unet: UNet2DModel, scheduler: DDPMScheduler, placement: Placement, *, name: str) -> DiffusionNetwork:
    """The backbone of a network that is in memory already."""
    return _unet.backbone(unet, scheduler, placement, name=name)


def build(name: ModelName, placement: Placement) -> DiffusionNetwork:
    """Load a pipeline folder; with `?untrained` its network with fresh random weights of a fixed seed."""
    folder = _folders.local(name, weights=not (placement.weightless or name.untrained))
    unet = _network(folder / "unet", placement, name.untrained)
    scheduler = _folders.scheduler(DDPMScheduler, folder)
    identity = "" if placement.weightless else _folders.identity(folder, ("unet", "scheduler"), name.untrained)
    with _folders.reading(f"The settings {folder / 'unet' / 'config.json'}"):
        names = _folders.class_names(folder, int(unet.config.num_class_embeds or 0))
        return _unet.backbone(unet, scheduler, placement, name=str(name), identity=identity, class_names=names)


def _network(folder: Path, placement: Placement, untrained: bool) -> UNet2DModel:
    with _folders.reading(folder / "config.json"):
        config = UNet2DModel.load_config(folder, local_files_only=True)
    if not any(key in config for key in (_unet.HEADS, _unet.TIME_CHANNELS)):
        return _folders.part(UNet2DModel, folder, placement, untrained=untrained)
    unet = _unet.make(config, placement.dtype, weights=untrained)
    if not (placement.weightless or untrained):
        with _folders.reading(f"The weights in {folder}"):
            for file in sorted(folder.glob("*.safetensors")):
                weights = {n: w.to(placement.dtype) for n, w in load_file(file).items()}
                unet.load_state_dict(weights, assign=True, strict=False)
            lacking = [n for n, w in unet.state_dict().items() if w.is_meta]
            if lacking:
                raise BadModel(f"The weights in {folder} lack {lacking[0]}. Convert or save the model again.")
    return unet.to(device=placement.device, memory_format=torch.channels_last)

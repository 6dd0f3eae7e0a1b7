"""State dicts of OpenAI's guided-diffusion (ADM), renamed at the door into a `UNet2DModel` of diffusers.

Dhariwal and Nichol 2021 (arXiv 2105.05233); block numbers b are those of P1 (PAPER.md 1.3).
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor

from twofold.backbones import _adm, _folders, _unet, _weights
from twofold.backbones._network import DiffusionNetwork
from twofold.backbones.base import Placement
from twofold.errors import BadModel
from twofold.records import ModelName

SCHEMES = ("adm",)
FILE = "a guided-diffusion state dict, adm:FILE.pt"

log = logging.getLogger("twofold")

# guided-diffusion's flags of its published files (its README) as far as the shapes of the weights leave them open.
_IMAGENET = {"num_head_channels": 64, "noise_schedule": "linear"}
PUBLISHED: dict[str, dict[str, Any]] = {
    "64x64_diffusion": {**_IMAGENET, "image_size": 64, "noise_schedule": "cosine", "use_new_attention_order": True},
    "128x128_diffusion": {"image_size": 128, "num_heads": 4, "noise_schedule": "linear"},
    "256x256_diffusion": {**_IMAGENET, "image_size": 256},
    "256x256_diffusion_uncond": {**_IMAGENET, "image_size": 256},
    "512x512_diffusion": {**_IMAGENET, "image_size": 512},
    "lsun_bedroom": {**_IMAGENET, "image_size": 256},
    "lsun_cat": {**_IMAGENET, "image_size": 256},
    "lsun_horse": {**_IMAGENET, "image_size": 256},
    "lsun_horse_nodropout": {**_IMAGENET, "image_size": 256},
}


def build(name: ModelName, placement: Placement) -> DiffusionNetwork:
    """Read `adm:FILE.pt`; its settings come from the file's name, from FILE.json beside it, and from its shapes."""
    path = Path(name.argument)
    flags = _flags(path)
    state = _state(path, placement.weightless or name.untrained)
    shape = _adm.infer(state, path)
    heads = _adm.settle(shape, flags, path)
    config = _adm.config(shape, heads, flags)
    unet = _network(state, config, shape, heads, placement, name.untrained, path)
    scheduler = _scheduler(flags)
    if shape.classes:
        log.info("%s is class-conditional; where no --label is given the class embedding is zero", path.name)
    identity = "" if placement.weightless else _identity(path, flags, name.untrained)
    return _unet.backbone(unet, scheduler, placement, name=str(name), identity=identity)


def _flags(path: Path) -> dict[str, Any]:
    """guided-diffusion's flags: of a published file, or of the .json beside the file."""
    beside = path.with_suffix(".json")
    if not beside.exists():
        return dict(PUBLISHED.get(path.stem, {}))
    with _folders.reading(beside, "Write guided-diffusion's flags as one JSON object."):
        content = json.loads(beside.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError("it is no JSON object")
    return {**PUBLISHED.get(path.stem, {}), **content}


def _state(path: Path, shapes_only: bool) -> dict[str, Tensor]:
    """The tensors of a file; nothing in it is ever executed."""
    state = _weights.content(path, f"adm:{path}", shapes_only=shapes_only)
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BadModel(f"adm:{path} holds no state dict: names with tensors. Give the file of the U-Net's weights.")
    return state


def _network(
    state: dict[str, Tensor],
    config: dict[str, Any],
    shape: _adm.Shape,
    heads: _adm.Heads,
    placement: Placement,
    untrained: bool,
    path: Path,
) -> UNet2DModel:
    unet = _unet.make(config, placement.dtype, weights=untrained)
    _adm.check(state, unet, shape, path)
    if untrained:
        return unet.to(device=placement.device, memory_format=torch.channels_last)
    if not placement.weightless:
        _adm.fill(unet, state, shape, heads, placement)
    return unet


def _scheduler(flags: dict[str, Any]) -> DDPMScheduler:
    """guided-diffusion's `linear` or `cosine` schedule (Ho et al. 2020; Nichol and Dhariwal 2021, eq. 17)."""
    kind, steps = str(flags.get("noise_schedule", "linear")), int(flags.get("diffusion_steps", 1000))
    if kind not in ("linear", "cosine"):
        raise BadModel(f"noise_schedule {kind!r} is not one of guided-diffusion's: linear or cosine.")
    if kind == "cosine":
        return DDPMScheduler(steps, beta_schedule="squaredcos_cap_v2")
    # The published range is for 1000 steps; guided-diffusion widens it for fewer.
    scale = 1000 / steps
    return DDPMScheduler(steps, beta_start=1e-4 * scale, beta_end=0.02 * scale, beta_schedule="linear")


def _identity(path: Path, flags: dict[str, Any], untrained: bool) -> str:
    told = hashlib.sha256(json.dumps(flags, sort_keys=True).encode())
    told.update(f"untrained {_folders.UNTRAINED_SEED}".encode() if untrained else _folders.digest(path))
    return told.hexdigest()[:16]

"""What latent diffusion models share: an autoencoder in front of the network, and a whole-step schedule."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import Tensor

from twofold.backbones import _folders
from twofold.backbones._codecs import Latents
from twofold.backbones._processes import PREDICTIONS, Ladder
from twofold.backbones.base import Placement
from twofold.errors import BadModel
from twofold.records import ModelName


def codec(folder: Path, side: int, placement: Placement) -> Latents:
    """The pipeline's autoencoder; in half precision it overflows, so there it computes in float32."""
    dtype = torch.float32 if placement.dtype == torch.float16 else placement.dtype
    autoencoder = _folders.part(AutoencoderKL, folder / "vae", placement, dtype=dtype)
    identity = "" if placement.weightless else _folders.identity(folder, ("vae",))
    return Latents(autoencoder, side, identity)


def schedule(folder: Path) -> tuple[Ladder, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], dict[str, Any]]:
    """Noise process, kind of prediction and settings of a pipeline's scheduler, whichever it is."""
    # Every whole-step scheduler of diffusers writes the same settings; its own way to sample does not matter here.
    scheduler = _folders.scheduler(DDPMScheduler, folder)
    kind = str(scheduler.config.prediction_type)
    if kind not in PREDICTIONS:
        raise BadModel(f"{folder} predicts {kind!r}; {', '.join(PREDICTIONS)} can be read. Give another model.")
    betas = torch.as_tensor(scheduler.betas, dtype=torch.float64)
    return Ladder(betas), PREDICTIONS[kind], dict(scheduler.config)


def identity(folder: Path, network: str, texts: Sequence[str], name: ModelName, placement: Placement) -> str:
    """Hash of a network with its scheduler, and of the text encoders and tokenizers that tell it something."""
    if placement.weightless:
        return ""
    return _folders.identity(folder, (network, "scheduler"), name.untrained) + _folders.identity(folder, texts)


@torch.no_grad()
def prompted(kind: Any, folder: Path, placement: Placement, given: Mapping[str, Any], *call: Any, **more: Any) -> Any:
    """What a pipeline's text encoders say to the empty prompt; they are loaded for it and let go of.

    Args:
        kind: the pipeline's class.
        folder: its folder.
        placement: where the encoders compute.
        given: parts that are loaded already, or None for those that are never used.
        call, more: arguments of its `encode_prompt`.
    """
    for library in ("diffusers", "transformers"):
        # Their bars would stand between the command's own lines, and with --quiet where nothing should.
        importlib.import_module(f"{library}.utils.logging").disable_progress_bar()
    parts = {**_folders.absent(folder), **given}
    with _folders.reading(f"The text encoder in {folder}", "Save the pipeline again."):
        pipeline = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=placement.dtype, **parts
        ).to(placement.device)
        return pipeline.encode_prompt(*call, device=placement.device, **more)


def empty(placement: Placement, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """The same as shapes alone, where no weights are read."""
    made: Any = {"device": placement.device, "dtype": placement.dtype}
    return {name: torch.empty(1, *shape, **made) for name, shape in shapes.items()}


def for_batch(told: dict[str, Tensor]) -> Callable[[int], dict[str, Tensor]]:
    """What a network is told once for all images, [1, ...] each, repeated to a batch."""
    return lambda count: {name: value.expand(count, *value.shape[1:]) for name, value in told.items()}

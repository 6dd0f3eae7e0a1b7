"""Stable Diffusion 1.x, 2.x and XL of diffusers: a U-Net on latents, told the empty prompt.

Rombach et al. 2022 (arXiv 2112.10752), Podell et al. 2023 (arXiv 2307.01952). The text encoders speak once, when the
model is loaded, and are let go of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor

from twofold.backbones import _folders, _latent, _unet
from twofold.backbones._network import DiffusionNetwork, Parts
from twofold.backbones.base import Placement
from twofold.records import ModelName

SCHEMES = ("diffusers",)
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")

PROMPT_TOKENS = 77
ELSEWHERE = {"unet": None, "vae": None}


def build(name: ModelName, placement: Placement) -> DiffusionNetwork:
    """Load a pipeline folder; blocks are numbered as in every U-Net."""
    folder = _folders.local(name, weights=not placement.weightless)
    unet: Any = _folders.part(UNet2DConditionModel, folder / "unet", placement, untrained=name.untrained)
    process, prediction, schedule = _latent.schedule(folder)
    codec = _latent.codec(folder, int(unet.config.sample_size), placement)
    extra_large = _folders.pipeline_class(folder) == "StableDiffusionXLPipeline"
    prompt = _prompt_large if extra_large else _prompt
    told = _latent.for_batch(prompt(folder, unet, codec.image_size, placement))

    def arguments(x: Tensor, t: Tensor, _labels: Tensor | None) -> Mapping[str, Any]:
        text = told(len(x))
        states = text.pop("encoder_hidden_states")
        added = {"added_cond_kwargs": text} if text else {}
        return {"sample": x, "timestep": t.long(), "encoder_hidden_states": states, **added}

    parts = Parts(
        network=unet,
        places=_unet.places(unet),
        arguments=arguments,
        process=process,
        prediction=prediction,
        codec=codec,
        schedule=schedule,
        compiled=_unet.inner(unet),
    )
    texts = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    identity = _latent.identity(folder, "unet", texts, name, placement)
    return DiffusionNetwork(parts, placement, name=str(name), identity=identity)


def _prompt(folder: Path, unet: Any, _side: int, placement: Placement) -> dict[str, Tensor]:
    """The empty prompt of Stable Diffusion 1.x and 2.x."""
    if placement.weightless:
        return _latent.empty(placement, encoder_hidden_states=(PROMPT_TOKENS, unet.config.cross_attention_dim))
    without = {**ELSEWHERE, "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    kind = StableDiffusionPipeline
    states, _ = _latent.prompted(
        kind, folder, placement, without, "", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return {"encoder_hidden_states": states}


def _prompt_large(folder: Path, unet: Any, side: int, placement: Placement) -> dict[str, Tensor]:
    """The empty prompt of Stable Diffusion XL, with sizes that say "an uncropped image of the right size"."""
    sizes = torch.tensor([[side, side, 0, 0, side, side]], device=placement.device, dtype=placement.dtype)
    if placement.weightless:
        pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
        width = (PROMPT_TOKENS, unet.config.cross_attention_dim)
        return {**_latent.empty(placement, encoder_hidden_states=width, text_embeds=(pooled,)), "time_ids": sizes}
    kind = StableDiffusionXLPipeline
    states, _, pooled, _ = _latent.prompted(kind, folder, placement, ELSEWHERE, "", do_classifier_free_guidance=False)
    return {"encoder_hidden_states": states, "text_embeds": pooled, "time_ids": sizes}

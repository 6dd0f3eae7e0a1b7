"""Flow-matching transformers of diffusers (`StableDiffusion3Pipeline`): t in 0..1, told the empty prompt.

Esser et al. 2024 (arXiv 2403.03206): (1 - t) x + t noise, and the network predicts noise - x.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor

from twofold.backbones import _folders, _latent
from twofold.backbones._network import DiffusionNetwork, Parts
from twofold.backbones._processes import Flow, from_flow
from twofold.backbones._taps import Place
from twofold.backbones.base import Placement
from twofold.records import ModelName

SCHEMES = ("diffusers",)
PIPELINES = ("StableDiffusion3Pipeline",)

# The networks are told t in thousandths.
TIME_SCALE = 1000
PROMPT_TOKENS = 77 + 256


def build(name: ModelName, placement: Placement) -> DiffusionNetwork:
    """Load a pipeline folder; blocks are the transformer's, read at its image tokens."""
    folder = _folders.local(name, weights=not placement.weightless)
    network: Any = _folders.part(SD3Transformer2DModel, folder / "transformer", placement, untrained=name.untrained)
    told = _latent.for_batch(_prompt(folder, network, placement))

    def arguments(x: Tensor, t: Tensor, _labels: Tensor | None) -> Mapping[str, Any]:
        return {"hidden_states": x, "timestep": t.to(torch.float32) * TIME_SCALE, **told(len(x))}

    parts = Parts(
        network=network,
        places=[Place(f"block.{k}", block, part=1) for k, block in enumerate(network.transformer_blocks)],
        arguments=arguments,
        process=Flow(_shift(folder)),
        prediction=from_flow,
        codec=_latent.codec(folder, int(network.config.sample_size), placement),
        schedule={},
        compiled=[block.ff for block in network.transformer_blocks],
    )
    texts = tuple(f"{part}{k}" for part in ("text_encoder", "tokenizer") for k in ("", "_2", "_3"))
    identity = _latent.identity(folder, "transformer", texts, name, placement)
    return DiffusionNetwork(parts, placement, name=str(name), identity=identity)


def _shift(folder: Path) -> float:
    """How far the pipeline's own sampler moves its steps towards noise."""
    return float(_folders.scheduler(FlowMatchEulerDiscreteScheduler, folder).config.shift)


def _prompt(folder: Path, network: Any, placement: Placement) -> dict[str, Tensor]:
    """What the text encoders say to nothing."""
    if placement.weightless:
        states = (PROMPT_TOKENS, network.config.joint_attention_dim)
        pooled = (network.config.pooled_projection_dim,)
        return _latent.empty(placement, encoder_hidden_states=states, pooled_projections=pooled)
    # The pipeline asks the transformer for sizes.
    without = {"transformer": network, "vae": None}
    told, _, pooled_states, _ = _latent.prompted(
        StableDiffusion3Pipeline, folder, placement, without, "", "", "", do_classifier_free_guidance=False
    )
    return {"encoder_hidden_states": told, "pooled_projections": pooled_states}

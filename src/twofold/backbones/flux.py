"""Flux of diffusers (`FluxPipeline`): a flow on latents in packs of 2 x 2, t in 0..1, told the empty prompt.

Black Forest Labs 2024: blocks with two streams, for text and image, then blocks with one; both are read at their image
tokens. Weights distilled with guidance (`dev`) are told the pipeline's own strength.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor

from twofold.backbones import _folders, _latent
from twofold.backbones._codecs import Packed
from twofold.backbones._network import DiffusionNetwork, Parts
from twofold.backbones._processes import Flow, from_flow
from twofold.backbones._taps import Place
from twofold.backbones.base import Placement
from twofold.records import ModelName

SCHEMES = ("diffusers",)
PIPELINES = ("FluxPipeline",)

GUIDANCE = 3.5
# `schnell`, which has no guidance, was trained with prompts of 256 tokens, `dev` with 512.
PROMPT_TOKENS = {True: 512, False: 256}


def build(name: ModelName, placement: Placement) -> DiffusionNetwork:
    """Load a pipeline folder; blocks are those of two streams, then those of one."""
    folder = _folders.local(name, weights=not placement.weightless)
    network: Any = _folders.part(FluxTransformer2DModel, folder / "transformer", placement, untrained=name.untrained)
    codec = Packed(_latent.codec(folder, _latent_side(folder), placement))
    told = _latent.for_batch(_prompt(folder, network, placement))
    guidance = GUIDANCE if network.config.guidance_embeds else None
    text = torch.zeros(PROMPT_TOKENS[guidance is not None], 3, device=placement.device, dtype=placement.dtype)

    def arguments(x: Tensor, t: Tensor, _labels: Tensor | None) -> Mapping[str, Any]:
        return {
            "hidden_states": x.flatten(2).transpose(1, 2),
            "timestep": t.to(x.dtype),
            "guidance": None if guidance is None else torch.full_like(t, guidance).to(x.dtype),
            "img_ids": _places_of(x),
            "txt_ids": text.to(x.device),
            **told(len(x)),
        }

    doubles, singles = network.transformer_blocks, network.single_transformer_blocks
    parts = Parts(
        network=network,
        places=[
            *(Place(f"double.{k}", block, part=1) for k, block in enumerate(doubles)),
            *(Place(f"single.{k}", block, part=1) for k, block in enumerate(singles)),
        ],
        arguments=arguments,
        process=Flow(_shift(folder, codec.shape[1] * codec.shape[2])),
        prediction=from_flow,
        codec=codec,
        schedule={},
        compiled=[block.ff for block in doubles],
    )
    texts = tuple(f"{part}{k}" for part in ("text_encoder", "tokenizer") for k in ("", "_2"))
    identity = _latent.identity(folder, "transformer", texts, name, placement)
    return DiffusionNetwork(parts, placement, name=str(name), identity=identity)


def _latent_side(folder: Path) -> int:
    """The network has no size of its own; its autoencoder says for which images it was made."""
    config: Any = AutoencoderKL.load_config(folder / "vae", local_files_only=True)
    side: int = int(config["sample_size"]) // 2 ** (len(config["block_out_channels"]) - 1)
    return side


def _places_of(x: Tensor) -> Tensor:
    """Row and column of each token [h w, 3], behind a zero."""
    rows, columns = (torch.arange(n, device=x.device, dtype=x.dtype) for n in x.shape[2:])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
    return torch.nn.functional.pad(grid, (1, 0))


def _shift(folder: Path, tokens: int) -> float:
    """How far the pipeline's own sampler moves its steps towards noise; `dev` moves them by the count of tokens."""
    config = _folders.scheduler(FlowMatchEulerDiscreteScheduler, folder).config
    if not config.use_dynamic_shifting:
        return float(config.shift)
    per_token = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    return math.exp(config.base_shift + per_token * (tokens - config.base_image_seq_len))


def _prompt(folder: Path, network: Any, placement: Placement) -> dict[str, Tensor]:
    """What the text encoders say to nothing."""
    config = network.config
    tokens = PROMPT_TOKENS[bool(config.guidance_embeds)]
    if placement.weightless:
        states, pooled = (tokens, config.joint_attention_dim), (config.pooled_projection_dim,)
        return _latent.empty(placement, encoder_hidden_states=states, pooled_projections=pooled)
    without = {"transformer": network, "vae": None}
    told, pooled_states, _ = _latent.prompted(
        FluxPipeline, folder, placement, without, "", "", max_sequence_length=tokens
    )
    return {"encoder_hidden_states": told, "pooled_projections": pooled_states}

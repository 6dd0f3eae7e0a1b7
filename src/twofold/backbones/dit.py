"""Diffusion transformers of diffusers (`DiTPipeline`): latents of an autoencoder, told a class or none.

Peebles and Xie 2023 (arXiv 2212.09748). Without a label the network is told the class that stands for "no class".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor

from twofold.backbones import _folders, _latent
from twofold.backbones._network import DiffusionNetwork, Parts
from twofold.backbones._taps import Place
from twofold.backbones.base import Placement
from twofold.records import ModelName

SCHEMES = ("diffusers",)
PIPELINES = ("DiTPipeline",)


def build(name: ModelName, placement: Placement) -> DiffusionNetwork:
    """Load a pipeline folder; blocks are the transformer's."""
    folder = _folders.local(name, weights=not (placement.weightless or name.untrained))
    network: Any = _folders.part(DiTTransformer2DModel, folder / "transformer", placement, untrained=name.untrained)
    process, prediction, schedule = _latent.schedule(folder)
    classes = int(network.config.num_embeds_ada_norm)

    def arguments(x: Tensor, t: Tensor, labels: Tensor | None) -> Mapping[str, Any]:
        told = torch.full((len(x),), classes, device=x.device) if labels is None else labels
        return {"hidden_states": x, "timestep": t.long(), "class_labels": told}

    parts = Parts(
        network=network,
        places=[Place(f"block.{k}", block) for k, block in enumerate(network.transformer_blocks)],
        arguments=arguments,
        process=process,
        prediction=prediction,
        codec=_latent.codec(folder, int(network.config.sample_size), placement),
        schedule=schedule,
        classes=classes,
        class_names=_names(folder, classes),
        compiled=[block.ff for block in network.transformer_blocks],
    )
    identity = "" if placement.weightless else _folders.identity(folder, ("transformer", "scheduler"), name.untrained)
    return DiffusionNetwork(parts, placement, name=str(name), identity=identity)


def _names(folder: Path, classes: int) -> tuple[str, ...]:
    """The classes' names as the pipeline's `id2label` has them; none where it does not name all."""
    told = json.loads((folder / "model_index.json").read_text(encoding="utf-8")).get("id2label") or {}
    names = [told.get(str(k)) for k in range(classes)]
    return tuple(str(name) for name in names) if all(names) else ()

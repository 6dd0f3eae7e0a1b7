"""Pixel-space U-Nets (`UNet2DModel` of diffusers): their block numbers, their classes, their schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from twofold.backbones import _folders
from twofold.backbones._codecs import Pixels
from twofold.backbones._network import DiffusionNetwork, Parts
from twofold.backbones._processes import PREDICTIONS, Ladder
from twofold.backbones._taps import Place
from twofold.backbones.base import Placement
from twofold.errors import BadModel

# Settings of guided-diffusion for which `UNet2DModel` has no words; kept in config.json and put on afterwards.
HEADS, TIME_CHANNELS = "twofold_attention_heads", "twofold_time_channels"


def backbone(
    unet: UNet2DModel,
    scheduler: DDPMScheduler,
    placement: Placement,
    *,
    name: str,
    identity: str = "",
    class_names: tuple[str, ...] = (),
) -> DiffusionNetwork:
    """A U-Net in pixel space with whole noise steps."""
    kind = str(scheduler.config.prediction_type)
    if kind not in PREDICTIONS:
        raise BadModel(f"{name} predicts {kind!r}; {', '.join(PREDICTIONS)} can be read. Give another model.")
    config = unet.config
    if config.out_channels not in (config.in_channels, 2 * config.in_channels):
        raise BadModel(
            f"{name} takes {config.in_channels} channels and gives {config.out_channels}; a network that removes noise "
            "gives as many, or twice as many with its variance. Give another model."
        )
    parts = Parts(
        network=unet,
        places=places(unet),
        arguments=conditioned(unet, lambda x, t: {"sample": x, "timestep": t.long()}),
        process=Ladder(torch.as_tensor(scheduler.betas, dtype=torch.float64)),
        prediction=PREDICTIONS[kind],
        codec=Pixels(int(config.sample_size), int(config.in_channels)),
        schedule=dict(scheduler.config),
        classes=int(config.num_class_embeds or 0),
        class_names=class_names,
        pipeline=lambda: DDPMPipeline(without_null_class(unet), scheduler),
        compiled=inner(unet),
    )
    return DiffusionNetwork(parts, placement, name=name, identity=identity)


def places(unet: nn.Module) -> list[Place]:
    """The modules whose outputs are the blocks b = 1, 2, ..., in order of the forward pass.

    Numbered as in P1 (PAPER.md 1.3): the first convolution, every encoder layer and down-sampling, the middle, every
    decoder layer; a decoder level's up-sampling belongs to its last layer.
    """
    net: Any = unet
    found = [Place("conv_in", net.conv_in)]
    for i, level in enumerate(net.down_blocks):
        found += [Place(f"down.{i}.{j}", layer) for j, layer in enumerate(_layers(level))]
        resampled = getattr(level, "downsamplers", None) or ()
        # Levels that carry the image along add it after resampling, so there the level's own output counts.
        found += [Place(f"down.{i}.downsample", level if hasattr(level, "resnet_down") else m) for m in resampled[-1:]]
    if net.mid_block is not None:
        found.append(Place("mid", net.mid_block))
    for i, level in enumerate(net.up_blocks):
        layers = _layers(level)
        carries = getattr(level, "resnet_up", None) is not None
        resampled = [level] if carries else getattr(level, "upsamplers", None) or ()
        ends = [*layers[:-1], (resampled or layers[-1:])[-1]]
        found += [Place(f"up.{i}.{j}", layer) for j, layer in enumerate(ends)]
    return found


def _layers(level: nn.Module) -> list[nn.Module]:
    """The last module of each layer of a level: its attention where it has one, else its ResBlock."""
    resblocks, attentions = list(level.resnets), list(getattr(level, "attentions", None) or ())  # type: ignore[arg-type]
    return [*resblocks[: len(resblocks) - len(attentions)], *attentions]


def inner(unet: nn.Module) -> list[nn.Module]:
    """The ResBlocks: what is worth compiling, one at a time."""
    from diffusers.models.resnet import ResnetBlock2D

    return [module for module in unet.modules() if isinstance(module, ResnetBlock2D)]


def conditioned(
    unet: UNet2DModel, arguments: Callable[[Tensor, Tensor], dict[str, Any]]
) -> Callable[[Tensor, Tensor, Tensor | None], Mapping[str, Any]]:
    """Arguments with a class, where the network wants one; without a label its embedding is zero.

    The table of class embeddings gets one more row, of zeros, that stands for "no class".
    """
    count = int(unet.config.num_class_embeds or 0)
    if not count:
        return lambda x, t, _labels: arguments(x, t)
    table: Tensor = unet.class_embedding.weight
    widened = torch.cat([table.detach(), torch.zeros_like(table[:1])])
    # A padding row gets no gradient, so it stays zero where the network is trained.
    frozen = not table.requires_grad
    unet.class_embedding = nn.Embedding(count + 1, table.shape[1], padding_idx=count, _weight=widened, _freeze=frozen)

    def told(x: Tensor, t: Tensor, labels: Tensor | None) -> Mapping[str, Any]:
        nobody = torch.full((len(x),), count, device=x.device)
        return {**arguments(x, t), "class_labels": nobody if labels is None else labels}

    return told


def _table(rows: Tensor) -> nn.Embedding:
    return nn.Embedding(rows.shape[0], rows.shape[1], _weight=rows, _freeze=True)


def without_null_class(unet: UNet2DModel) -> UNet2DModel:
    """Take the row back that `conditioned` added, for saving."""
    count = int(unet.config.num_class_embeds or 0)
    if count:
        unet.class_embedding = _table(unet.class_embedding.weight[:count].detach().clone())
    return unet


def make(config: dict[str, Any], dtype: torch.dtype, *, weights: bool) -> UNet2DModel:
    """A U-Net of these settings and of ours beyond diffusers' own words, with random weights or with none."""
    own = {name: config[name] for name in (HEADS, TIME_CHANNELS) if name in config}
    known = {name: value for name, value in config.items() if name not in own}
    unet = (_folders.fresh if weights else _folders.shapes)(UNet2DModel, known, dtype)
    unet.register_to_config(**own)
    if HEADS in own:
        _cut_into(unet, own[HEADS])
    if TIME_CHANNELS in own:
        _widen_time(unet, own[TIME_CHANNELS])
    return unet.eval().requires_grad_(False)


def _cut_into(unet: UNet2DModel, heads: int) -> None:
    """The same number of heads in every attention layer."""
    for module in unet.modules():
        if isinstance(module, Attention):
            module.heads = heads
            module.scale = (module.inner_dim // heads) ** -0.5


def _widen_time(unet: UNet2DModel, channels: int) -> None:
    """A sinusoidal embedding of another size than the first level's channels."""
    before = unet.time_embedding.linear_1
    unet.time_proj = Timesteps(channels, flip_sin_to_cos=True, downscale_freq_shift=0)
    with before.weight.device, torch.random.fork_rng(devices=[]):
        torch.manual_seed(_folders.UNTRAINED_SEED)
        unet.time_embedding = TimestepEmbedding(channels, before.out_features).to(before.weight.dtype)

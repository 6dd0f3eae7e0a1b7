"""guided-diffusion's U-Net, read off the names and shapes of its weights, and its names in diffusers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twofold.backbones import _unet
from twofold.backbones.base import Placement
from twofold.errors import BadModel

State = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """What the shapes of the weights tell.

    Attributes:
        widths: channels of each level, finest first.
        layers: ResBlocks an encoder level.
        attended: whether each level has attention.
        time_channels: size of the sinusoidal time embedding (guided-diffusion's num_channels).
        in_channels, out_channels: of images and prediction; twice as many come out where the variance is learned.
        classes: 0 without labels.
        scale_shift: whether the time embedding scales as well as shifts.
        by_resblock: whether levels are resampled by ResBlocks; else by strided convolutions.
    """

    widths: tuple[int, ...]
    layers: int
    attended: tuple[bool, ...]
    time_channels: int
    in_channels: int
    out_channels: int
    classes: int
    scale_shift: bool
    by_resblock: bool


@dataclass(frozen=True)
class Heads:
    """How attention is cut into heads: a fixed width, or a fixed count; and the order of the rows of q, k and v."""

    width: int | None
    count: int | None
    new_order: bool

    def of(self, channels: int) -> int:
        """Heads in a layer of so many channels."""
        return self.count or channels // (self.width or channels)


def infer(state: State, path: Path) -> Shape:
    """Read the network's shape off its weights."""
    for needed in (
        "input_blocks.0.0.weight",
        "time_embed.0.weight",
        "middle_block.0.in_layers.2.weight",
        "out.2.weight",
    ):
        if needed not in state:
            begins = next(iter(state), "nothing")
            raise BadModel(
                f"adm:{path} is another network: it lacks {needed} and begins with {begins}. "
                "Give the state dict of a guided-diffusion U-Net."
            )
    outputs = 1 + max(int(m[1]) for name in state if (m := re.match(r"output_blocks\.(\d+)\.", name)))
    ups = [k for k in range(outputs) if _upsamples(state, k)]
    layers = ups[0] if ups else outputs - 1
    levels = outputs // (layers + 1)
    if levels * (layers + 1) != outputs or ups != [k * (layers + 1) - 1 for k in range(1, levels)]:
        raise BadModel(
            f"adm:{path}: its levels cannot be told apart: up-sampling without weights (conv_resample False) is not "
            "read. Give a network that resamples by ResBlocks or convolutions."
        )
    firsts = [level * (layers + 1) + 1 for level in range(levels)]
    widths = tuple(state[f"input_blocks.{k}.0.in_layers.2.weight"].shape[0] for k in firsts)
    first = state["input_blocks.1.0.emb_layers.1.weight"].shape[0]
    return Shape(
        widths=widths,
        layers=layers,
        attended=tuple(f"input_blocks.{k}.1.qkv.weight" in state for k in firsts),
        time_channels=state["time_embed.0.weight"].shape[1],
        in_channels=state["input_blocks.0.0.weight"].shape[1],
        out_channels=state["out.2.weight"].shape[0],
        classes=state["label_emb.weight"].shape[0] if "label_emb.weight" in state else 0,
        scale_shift=first == 2 * widths[0],
        by_resblock=levels == 1 or f"input_blocks.{layers + 1}.0.in_layers.2.weight" in state,
    )


def _upsamples(state: State, block: int) -> bool:
    """Whether a decoder block ends with up-sampling: a second ResBlock or a convolution."""
    later = [f"output_blocks.{block}.{part}.{what}.weight" for part in (1, 2) for what in ("in_layers.2", "conv")]
    return any(name in state for name in later)


def settle(shape: Shape, flags: dict[str, Any], path: Path) -> Heads:
    """Hold the flags against the shapes, and take from them what the shapes leave open."""
    told = {"num_channels": shape.time_channels, "num_res_blocks": shape.layers, "class_cond": bool(shape.classes),
            "use_scale_shift_norm": shape.scale_shift, "resblock_updown": shape.by_resblock,
            "learn_sigma": shape.out_channels == 2 * shape.in_channels}  # fmt: skip
    for flag, found in told.items():
        if flag in flags and flags[flag] != found:
            raise BadModel(
                f"adm:{path}: the weights say {flag} is {found}, the flags say {flags[flag]}. Mend the flags."
            )
    width, count = (_positive(flags.get(flag)) for flag in ("num_head_channels", "num_heads"))
    if width is None and count is None:
        _open(path, "num_head_channels (or num_heads)")
    if "image_size" not in flags:
        _open(path, "image_size")
    if _positive(flags.get("num_heads_upsample")) not in (None, count):
        raise BadModel(f"adm:{path}: num_heads_upsample differs from num_heads, which is not read.")
    # guided-diffusion lets the width win where both are given.
    heads = Heads(width, None if width else count, bool(flags.get("use_new_attention_order", False)))
    attended = [c for c, has in zip(shape.widths, shape.attended, strict=True) if has] + [shape.widths[-1]]
    odd = [c for c in attended if c % (heads.width or heads.count or 1)]
    if odd:
        raise BadModel(f"adm:{path}: attention over {odd[0]} channels cannot be cut into {heads}. Mend the flags.")
    return heads


def _positive(flag: Any) -> int | None:
    """guided-diffusion writes -1 for "not given"."""
    return int(flag) if flag is not None and int(flag) > 0 else None


def _open(path: Path, flag: str) -> None:
    raise BadModel(
        f"adm:{path}: the weights leave {flag} open. Write it to {path.with_suffix('.json').name} beside the file with "
        'guided-diffusion\'s names, for instance {"image_size": 256, "num_head_channels": 64}, or give a published '
        "file its own name (256x256_diffusion_uncond.pt)."
    )


def config(shape: Shape, heads: Heads, flags: dict[str, Any]) -> dict[str, Any]:
    """The settings of the same network as diffusers' `UNet2DModel`."""
    levels = len(shape.widths)
    down = [_kind("Down", a, shape.by_resblock) for a in shape.attended]
    up = [_kind("Up", a, shape.by_resblock) for a in shape.attended[::-1]]
    resample = "resnet" if shape.by_resblock else "conv"
    extra = {} if heads.count is None else {_unet.HEADS: heads.count}
    if shape.time_channels != shape.widths[0]:
        extra[_unet.TIME_CHANNELS] = shape.time_channels
    size = int(flags["image_size"])
    if size % 2 ** (levels - 1):
        raise BadModel(f"image_size {size} cannot be halved {levels - 1} times, as the weights' levels ask for.")
    return {
        "sample_size": size, "in_channels": shape.in_channels, "out_channels": shape.out_channels,
        "block_out_channels": shape.widths, "layers_per_block": shape.layers,
        "down_block_types": tuple(down), "up_block_types": tuple(up),
        "downsample_type": resample, "upsample_type": resample,
        "time_embedding_dim": 4 * shape.time_channels, "attention_head_dim": heads.width or math.gcd(*shape.widths),
        "attn_norm_num_groups": 32, "resnet_time_scale_shift": "scale_shift" if shape.scale_shift else "default",
        "num_class_embeds": shape.classes or None, **extra,
    }  # fmt: skip


def _kind(way: str, attended: bool, by_resblock: bool) -> str:
    if attended:
        return f"Attn{way}Block2D"
    return f"Resnet{way}sampleBlock2D" if by_resblock else f"{way}Block2D"


def renames(shape: Shape) -> Iterator[tuple[str, str]]:
    """Every (module of guided-diffusion, module of diffusers) that holds weights; `qkv` stands for three."""
    yield from (("time_embed.0", "time_embedding.linear_1"), ("time_embed.2", "time_embedding.linear_2"))
    yield from (("input_blocks.0.0", "conv_in"), ("out.0", "conv_norm_out"), ("out.2", "conv_out"))
    if shape.classes:
        yield "label_emb", "class_embedding"
    yield from _resblock("middle_block.0", "mid_block.resnets.0")
    yield from _attention("middle_block.1", "mid_block.attentions.0")
    yield from _resblock("middle_block.2", "mid_block.resnets.1")
    yield from _encoder_names(shape)
    yield from _decoder_names(shape)


def _encoder_names(shape: Shape) -> Iterator[tuple[str, str]]:
    step = shape.layers + 1
    for level, attended in enumerate(shape.attended):
        for k in range(shape.layers):
            yield from _layer(f"input_blocks.{level * step + 1 + k}", f"down_blocks.{level}", k, attended)
        if level < len(shape.widths) - 1:
            here = f"input_blocks.{(level + 1) * step}.0"
            yield from _resample(here, f"down_blocks.{level}.downsamplers.0", "op", shape.by_resblock)


def _decoder_names(shape: Shape) -> Iterator[tuple[str, str]]:
    step = shape.layers + 1
    for level, attended in enumerate(shape.attended[::-1]):
        for k in range(step):
            yield from _layer(f"output_blocks.{level * step + k}", f"up_blocks.{level}", k, attended)
        if level < len(shape.widths) - 1:
            here = f"output_blocks.{(level + 1) * step - 1}.{2 if attended else 1}"
            yield from _resample(here, f"up_blocks.{level}.upsamplers.0", "conv", shape.by_resblock)


def _layer(here: str, level: str, k: int, attended: bool) -> Iterator[tuple[str, str]]:
    yield from _resblock(f"{here}.0", f"{level}.resnets.{k}")
    if attended:
        yield from _attention(f"{here}.1", f"{level}.attentions.{k}")


def _resample(here: str, there: str, own: str, by_resblock: bool) -> Iterator[tuple[str, str]]:
    if by_resblock:
        yield from _resblock(here, there)
    else:
        yield f"{here}.{own}", f"{there}.conv"


def _resblock(here: str, there: str) -> Iterator[tuple[str, str]]:
    pairs = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
             "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}  # fmt: skip
    yield from ((f"{here}.{a}", f"{there}.{b}") for a, b in pairs.items())


def _attention(here: str, there: str) -> Iterator[tuple[str, str]]:
    pairs = {"norm": "group_norm", "qkv": "qkv", "proj_out": "to_out.0"}
    yield from ((f"{here}.{a}", f"{there}.{b}") for a, b in pairs.items())


def _pairs(state: State, shape: Shape) -> Iterator[tuple[str, list[str]]]:
    """Every (weight of guided-diffusion, its one or three names in diffusers) that the file should hold."""
    for here, there in renames(shape):
        optional = here.endswith("skip_connection")
        for kind in ("weight",) if here == "label_emb" else ("weight", "bias"):
            if optional and f"{here}.{kind}" not in state:
                continue
            if there.endswith(".qkv"):
                yield f"{here}.{kind}", [f"{there[:-3]}to_{letter}.{kind}" for letter in "qkv"]
            else:
                yield f"{here}.{kind}", [f"{there}.{kind}"]


def check(state: State, unet: nn.Module, shape: Shape, path: Path) -> None:
    """Every weight is there, none is left over, all have the right size."""
    pairs = list(_pairs(state, shape))
    wanted = dict(unet.named_parameters())
    missing = [here for here, _ in pairs if here not in state]
    named = {there for _, targets in pairs for there in targets}
    missing += sorted(named - wanted.keys()) + sorted(wanted.keys() - named)
    unexpected = sorted(state.keys() - {here for here, _ in pairs})
    if missing or unexpected:
        told = [
            f"{what} {names[0]}" for what, names in (("lacks", missing), ("has an unexpected", unexpected)) if names
        ]
        raise BadModel(f"adm:{path} is another network: it {' and '.join(told)}. Give a guided-diffusion U-Net.")
    for here, targets in pairs:
        if state[here].numel() != sum(wanted[there].numel() for there in targets):
            raise BadModel(
                f"adm:{path}: {here} has the shape {tuple(state[here].shape)}, which does not fit the network."
            )


def fill(unet: nn.Module, state: State, shape: Shape, heads: Heads, placement: Placement) -> None:
    """Give the network its weights, one at a time; each is let go of as soon as it is placed, so no copy is kept."""
    for here, targets in list(_pairs(state, shape)):
        weight = state.pop(here)
        parts = _by_head(weight, heads) if len(targets) == 3 else (weight,)
        for there, part in zip(targets, parts, strict=True):
            module, _, leaf = there.rpartition(".")
            owner = unet.get_submodule(module)
            fitted = part.reshape(getattr(owner, leaf).shape).to(placement.device, placement.dtype)
            if fitted.ndim == 4:
                fitted = fitted.contiguous(memory_format=torch.channels_last)
            # A part of a mapped or shared storage would keep the whole alive.
            setattr(owner, leaf, nn.Parameter(fitted.clone() if len(parts) == 3 else fitted, requires_grad=False))


def _by_head(qkv: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of q, k and v, each head after head; guided-diffusion's older order has the three of a head together."""
    channels = qkv.shape[0] // 3
    if heads.new_order:
        return tuple(qkv.chunk(3))  # type: ignore[return-value]
    rows = qkv.reshape(heads.of(channels), 3, channels // heads.of(channels), *qkv.shape[1:])
    return rows[:, 0], rows[:, 1], rows[:, 2]

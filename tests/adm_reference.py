"""guided-diffusion's U-Net written out from its names: a state dict in, every block's output out.

Independent of diffusers and of the code under test, and as plain as can be: no modules, float64. It is held against the
reference implementation's own outputs where those are at hand (`test_adm.py`), and stands in for it elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class Flags:
    """guided-diffusion's flags, those that change the network."""

    image_size: int = 16
    num_channels: int = 32
    num_res_blocks: int = 1
    channel_mult: tuple[float, ...] = (1, 2)
    attention_levels: tuple[int, ...] = (1,)
    num_heads: int = -1
    num_head_channels: int = 16
    class_cond: bool = False
    learn_sigma: bool = True
    use_scale_shift_norm: bool = True
    resblock_updown: bool = True
    use_new_attention_order: bool = False
    noise_schedule: str = "linear"
    diffusion_steps: int = 1000

    def written(self) -> dict[str, Any]:
        """As a .json beside the file has them."""
        return {n: v for n, v in asdict(self).items() if n not in ("channel_mult", "attention_levels")}

    def heads(self, channels: int) -> int:
        return channels // self.num_head_channels if self.num_head_channels > 0 else self.num_heads


def random_state(flags: Flags, seed: int = 0) -> State:
    """Random weights under guided-diffusion's names, sized so that activations keep their scale."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}

    def layer(name: str, out: int, *shape: int, norm: bool = False) -> None:
        fan = math.prod(shape) or 1
        weight = torch.randn(out, *shape, generator=generator)
        state[f"{name}.weight"] = 1 + 0.1 * weight if norm else weight / math.sqrt(fan)
        state[f"{name}.bias"] = 0.1 * torch.randn(out, generator=generator)

    def resblock(name: str, here: int, there: int) -> None:
        layer(f"{name}.in_layers.0", here, norm=True)
        layer(f"{name}.in_layers.2", there, here, 3, 3)
        layer(f"{name}.emb_layers.1", there * (2 if flags.use_scale_shift_norm else 1), 4 * flags.num_channels)
        layer(f"{name}.out_layers.0", there, norm=True)
        layer(f"{name}.out_layers.3", there, there, 3, 3)
        if here != there:
            layer(f"{name}.skip_connection", there, here, 1, 1)

    def attention(name: str, width: int) -> None:
        layer(f"{name}.norm", width, norm=True)
        layer(f"{name}.qkv", 3 * width, width, 1)
        layer(f"{name}.proj_out", width, width, 1)

    def resample(name: str, width: int, own: str) -> None:
        if flags.resblock_updown:
            resblock(name, width, width)
        else:
            layer(f"{name}.{own}", width, width, 3, 3)

    base, levels = flags.num_channels, len(flags.channel_mult)
    widths = [int(m * base) for m in flags.channel_mult]
    layer("time_embed.0", 4 * base, base)
    layer("time_embed.2", 4 * base, 4 * base)
    if flags.class_cond:
        state["label_emb.weight"] = torch.randn(10, 4 * base, generator=generator)
    layer("input_blocks.0.0", widths[0], 3, 3, 3)
    skips, width, number = [widths[0]], widths[0], 1
    for level, wide in enumerate(widths):
        for _ in range(flags.num_res_blocks):
            resblock(f"input_blocks.{number}.0", width, wide)
            width = wide
            if level in flags.attention_levels:
                attention(f"input_blocks.{number}.1", width)
            skips.append(width)
            number += 1
        if level < levels - 1:
            resample(f"input_blocks.{number}.0", width, "op")
            skips.append(width)
            number += 1
    resblock("middle_block.0", width, width)
    attention("middle_block.1", width)
    resblock("middle_block.2", width, width)
    number = 0
    for level in reversed(range(levels)):
        for k in range(flags.num_res_blocks + 1):
            resblock(f"output_blocks.{number}.0", width + skips.pop(), widths[level])
            width, part = widths[level], 1
            if level in flags.attention_levels:
                attention(f"output_blocks.{number}.1", width)
                part = 2
            if level and k == flags.num_res_blocks:
                resample(f"output_blocks.{number}.{part}", width, "conv")
            number += 1
    layer("out.0", width, norm=True)
    layer("out.2", 6 if flags.learn_sigma else 3, width, 3, 3)
    return state


def run(state: State, flags: Flags, x: Tensor, t: Tensor, y: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
    """Every block's output b = 1, 2, ... and the network's."""
    s = {name: value.double() for name, value in state.items()}
    half = s["time_embed.0.weight"].shape[1] // 2
    angles = t.double()[:, None] * torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / half)
    emb = torch.cat([angles.cos(), angles.sin()], 1)
    emb = _linear(s, "time_embed.2", F.silu(_linear(s, "time_embed.0", emb)))
    if y is not None:
        emb = emb + s["label_emb.weight"][y]
    found, skips, h = [], [], x.double()
    for k in range(_count(s, "input_blocks")):
        h = _block(s, flags, f"input_blocks.{k}", h, emb, up=False)
        skips.append(h)
        found.append(h)
    h = _block(s, flags, "middle_block", h, emb, up=False)
    found.append(h)
    for k in range(_count(s, "output_blocks")):
        h = _block(s, flags, f"output_blocks.{k}", torch.cat([h, skips.pop()], 1), emb, up=True)
        found.append(h)
    out = F.conv2d(F.silu(_norm(s, "out.0", h)), s["out.2.weight"], s["out.2.bias"], padding=1)
    return found, out


def _count(s: State, where: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in s if name.startswith(where))


def _block(s: State, flags: Flags, name: str, h: Tensor, emb: Tensor, *, up: bool) -> Tensor:
    """All layers of one entry of guided-diffusion's lists, one after another."""
    if f"{name}.0.weight" in s:
        return F.conv2d(h, s[f"{name}.0.weight"], s[f"{name}.0.bias"], padding=1)
    parts = sorted({n[len(name) + 1 :].split(".")[0] for n in s if n.startswith(name + ".")}, key=int)
    step = flags.num_res_blocks + 1
    kind, _, number = name.partition(".")
    for part in parts:
        here = f"{name}.{part}"
        if f"{here}.qkv.weight" in s:
            h = _attention(s, flags, here, h)
        elif f"{here}.op.weight" in s:
            h = F.conv2d(h, s[f"{here}.op.weight"], s[f"{here}.op.bias"], stride=2, padding=1)
        elif f"{here}.conv.weight" in s:
            h = F.conv2d(_twice(h), s[f"{here}.conv.weight"], s[f"{here}.conv.bias"], padding=1)
        else:
            shrink = kind == "input_blocks" and int(number) % step == 0
            h = _resblock(s, flags, here, h, emb, "half" if shrink else "twice" if up and part != "0" else "")
    return h


def _resblock(s: State, flags: Flags, name: str, x: Tensor, emb: Tensor, resample: str) -> Tensor:
    change = {"half": lambda v: F.avg_pool2d(v, 2), "twice": _twice, "": lambda v: v}[resample]
    h = change(F.silu(_norm(s, f"{name}.in_layers.0", x)))
    h = F.conv2d(h, s[f"{name}.in_layers.2.weight"], s[f"{name}.in_layers.2.bias"], padding=1)
    told = _linear(s, f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None]
    if flags.use_scale_shift_norm:
        scale, shift = told.chunk(2, 1)
        h = _norm(s, f"{name}.out_layers.0", h) * (1 + scale) + shift
    else:
        h = _norm(s, f"{name}.out_layers.0", h + told)
    h = F.conv2d(F.silu(h), s[f"{name}.out_layers.3.weight"], s[f"{name}.out_layers.3.bias"], padding=1)
    x = change(x)
    if f"{name}.skip_connection.weight" in s:
        x = F.conv2d(x, s[f"{name}.skip_connection.weight"], s[f"{name}.skip_connection.bias"])
    return x + h


def _attention(s: State, flags: Flags, name: str, x: Tensor) -> Tensor:
    batch, width, height, _ = x.shape
    count = flags.heads(width)
    rows = F.conv1d(_norm(s, f"{name}.norm", x).flatten(2), s[f"{name}.qkv.weight"], s[f"{name}.qkv.bias"])
    # Of the 3 * width rows, the newer order has all of q first; the older has q, k and v of each head together.
    shape = (
        (batch, 3, count, -1, height * height) if flags.use_new_attention_order else (batch, count, 3, -1, height**2)
    )
    q, k, v = rows.reshape(shape).unbind(1 if flags.use_new_attention_order else 2)
    weight = (q.transpose(-1, -2) @ k / math.sqrt(q.shape[2])).softmax(-1)
    h = (v @ weight.transpose(-1, -2)).reshape(batch, width, -1)
    h = F.conv1d(h, s[f"{name}.proj_out.weight"], s[f"{name}.proj_out.bias"])
    return x + h.reshape(x.shape)


def _norm(s: State, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, s[f"{name}.weight"], s[f"{name}.bias"], eps=1e-5)


def _linear(s: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, s[f"{name}.weight"], s[f"{name}.bias"])


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")

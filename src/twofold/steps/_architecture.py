"""Which U-Net is trained: a plain one for any image size, ADM-like ones for the usual sizes, or one of a JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel

from twofold.errors import BadModel, BadSetting, unknown

NAMED = ("plain", "adm")
ATTENTION_UP_TO = 16  # maps of this side or smaller get attention, as in Ho et al. 2020
HEAD_CHANNELS = 64  # of ADM's attention (Dhariwal and Nichol 2021, table 4)
NOTES = ("_class_name", "_diffusers_version", "_name_or_path")


@dataclass(frozen=True)
class Preset:
    """An ADM-like network: ResBlocks resample, and the time embedding scales as well as shifts.

    Attributes:
        widths: channels of each level, finest first.
        layers: ResBlocks a level.
        attended: sides of the maps that get attention.
    """

    widths: tuple[int, ...]
    layers: int
    attended: tuple[int, ...]


def _wide(first: int, *times: int) -> tuple[int, ...]:
    return tuple(first * k for k in times)


# 64 and up: Dhariwal and Nichol 2021, table 4; 32: Nichol and Dhariwal 2021, appendix A; 8 and 28 follow their pattern.
PRESETS = {
    8: Preset(_wide(32, 1, 2), 2, (4,)),
    28: Preset(_wide(64, 1, 2, 2), 2, (14, 7)),
    32: Preset(_wide(128, 1, 2, 2, 2), 3, (16, 8)),
    64: Preset(_wide(192, 1, 2, 3, 4), 3, (32, 16, 8)),
    128: Preset(_wide(256, 1, 1, 2, 3, 4), 2, (32, 16, 8)),
    256: Preset(_wide(256, 1, 1, 2, 2, 4, 4), 2, (32, 16, 8)),
}


@dataclass(frozen=True)
class Wanted:
    """What decides the network's shape.

    Attributes:
        unet: `plain`, `adm`, or a JSON file with the settings of a `UNet2DModel`.
        widths, layers: in place of the network's own.
        side, channels: of the images.
        outputs: channels that it gives for each that it takes.
        classes: how many classes it can be told.
    """

    side: int
    channels: int
    unet: str = "plain"
    widths: tuple[int, ...] | None = None
    layers: int | None = None
    outputs: int = 1
    classes: int = 0


def network(wanted: Wanted) -> UNet2DModel:
    """A U-Net of this shape with random weights.

    Raises:
        BadSetting, BadModel, UnknownName: there is none that fits the images.
    """
    config = settings(wanted)
    try:
        return UNet2DModel.from_config(config)
    except Exception as error:
        raise _unusable(wanted, str(error)) from error


def check(wanted: Wanted) -> None:
    """Build the network without weights and show it an image of shapes alone.

    Raises:
        BadSetting, BadModel, UnknownName: there is none that fits the images.
    """
    with torch.device("meta"):
        unet = network(wanted)
        x = torch.empty(1, wanted.channels, wanted.side, wanted.side)
        told = {"class_labels": torch.zeros(1, dtype=torch.long)} if wanted.classes else {}
        try:
            given = unet(x, torch.ones(1), **told).sample
        except Exception as error:
            raise _unusable(wanted, str(error)) from error
    if given.shape != (1, wanted.outputs * wanted.channels, *x.shape[2:]):
        raise _unusable(wanted, f"it gives {tuple(given.shape[1:])} for {tuple(x.shape[1:])}")


def _unusable(wanted: Wanted, reason: str) -> BadModel:
    first = reason.strip().partition("\n")[0].rstrip(".")
    images = f"images of {wanted.side} pixels and {wanted.channels} channel{'s' * (wanted.channels > 1)}"
    return BadModel(f"--unet {wanted.unet} does not fit {images}: {first}. Mend it, or give plain or adm.")


def settings(wanted: Wanted) -> dict[str, Any]:
    """The settings of diffusers' `UNet2DModel`."""
    common = {
        "sample_size": wanted.side,
        "in_channels": wanted.channels,
        "out_channels": wanted.outputs * wanted.channels,
        "num_class_embeds": wanted.classes or None,
        "class_embed_type": None,
        "dropout": 0.0,  # its chances would not belong to the image
        # The other kind takes the logarithm of the noise step, and divides by it: there are steps of 0 and below.
        "time_embedding_type": "positional",
    }
    if wanted.unet not in NAMED:
        return _from_file(wanted, common)
    levels = len(wanted.widths or ()) or 1
    if wanted.side % 2 ** (levels - 1):
        raise BadSetting(
            f"Images of {wanted.side} pixels cannot be halved {levels - 1} times, as {levels} --widths ask for. "
            "Give fewer."
        )
    return {**(_plain if wanted.unet == "plain" else _adm)(wanted), **common}


def _plain(wanted: Wanted) -> dict[str, Any]:
    """By default levels are halved down to 4 pixels (or to an odd side)."""
    side, widths = wanted.side, wanted.widths or default_widths(wanted.side)
    sides = [side // 2**k for k in range(len(widths))]
    attended = [s <= ATTENTION_UP_TO and s < side for s in sides]
    return {
        "layers_per_block": wanted.layers or (1 if side <= 16 else 2),
        "block_out_channels": widths,
        "down_block_types": tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attended),
        "up_block_types": tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)),
        "attention_head_dim": None,
        "norm_num_groups": _groups(widths),
    }


def _adm(wanted: Wanted) -> dict[str, Any]:
    preset = PRESETS.get(wanted.side)
    if preset is None:
        raise BadSetting(
            f"--unet adm is for images of {', '.join(map(str, PRESETS))} pixels, not {wanted.side}. "
            "Give one of these as --size, or --unet plain."
        )
    widths = wanted.widths or preset.widths
    attended = [wanted.side // 2**k in preset.attended for k in range(len(widths))]
    head = next(h for h in (HEAD_CHANNELS, 32, 16, 8, 4, 2, 1) if all(w % h == 0 for w in widths))
    return {
        "layers_per_block": wanted.layers or preset.layers,
        "block_out_channels": widths,
        "down_block_types": tuple("AttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attended),
        "up_block_types": tuple("AttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in reversed(attended)),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attention_head_dim": head,
        "norm_num_groups": _groups(widths),
        # Without it diffusers leaves the norm of the middle's attention out.
        "attn_norm_num_groups": _groups(widths),
    }


def _from_file(wanted: Wanted, common: dict[str, Any]) -> dict[str, Any]:
    """What a file says, held against the images."""
    if not wanted.unet.endswith(".json"):
        raise unknown("network for --unet", wanted.unet, NAMED, "Or give a .json file of a diffusers UNet2DModel.")
    if wanted.widths or wanted.layers:
        raise BadSetting("--widths and --layers are for --unet plain and adm; a file says its own. Leave them out.")
    found = _read(Path(wanted.unet))
    for name, value in common.items():
        if found.get(name) not in (None, value):
            raise BadModel(
                f"--unet {wanted.unet} has {name} {found[name]}, the images and settings ask for {value}. "
                "Mend it, or leave the line out."
            )
    return {**found, **common}


def _read(path: Path) -> dict[str, Any]:
    """The settings of a `UNet2DModel`, and nothing else."""
    import inspect

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadModel(f"--unet {path} cannot be read: {error.strerror}. Give a .json file.") from error
    except ValueError as error:
        raise BadModel(f"--unet {path} is not JSON: {error}. Give the config.json of a UNet2DModel.") from error
    kind = found.get("_class_name", UNet2DModel.__name__) if isinstance(found, dict) else type(found).__name__
    if kind != UNet2DModel.__name__:
        raise BadModel(f"--unet {path} is a {kind}; a UNet2DModel can be trained. Give the config.json of one.")
    allowed = list(inspect.signature(UNet2DModel.__init__).parameters)[1:]
    for name in found:
        if name not in (*allowed, *NOTES):
            raise unknown(f"setting of a UNet2DModel in {path}:", name, allowed)
    return {name: value for name, value in found.items() if name not in NOTES}


def default_widths(side: int) -> tuple[int, ...]:
    """Channels of each level: 32, 64 for 8 pixels; from 64 doubling once for larger images."""
    levels, rest = 1, side
    while rest % 2 == 0 and rest > 4:
        levels, rest = levels + 1, rest // 2
    first = 32 if side <= 16 else 64
    return (first, *[2 * first] * (levels - 1))


def _groups(widths: tuple[int, ...]) -> int:
    """The largest usual group count that divides every width."""
    return next(g for g in (32, 16, 8, 4, 2, 1) if all(w % g == 0 and w // g > 1 for w in widths) or g == 1)

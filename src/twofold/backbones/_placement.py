"""Where a network computes and in which number format: `--device` and `--precision`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twofold.errors import BadSetting, unknown

if TYPE_CHECKING:
    import torch

DEVICES = ("cpu", "cuda", "cuda:N", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Placement:
    """Where and how a backbone computes.

    Attributes:
        device: `meta` reads no weights: shapes alone, for `twofold blocks`.
        dtype: number format of weights and activations.
        compile: whether parts of the network are compiled.
    """

    device: torch.device
    dtype: torch.dtype
    compile: bool = False

    @property
    def weightless(self) -> bool:
        """Whether no weights are to be read."""
        return self.device.type == "meta"


def place(device: str | None, precision: str) -> Placement:
    """Resolve `--device` and `--precision` for this machine."""
    import torch

    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    where = _device(device)
    formats = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision != "auto":
        return Placement(where, formats[precision])
    return Placement(where, torch.bfloat16 if _fast_bf16(where) else torch.float32)


def nowhere() -> Placement:
    """A placement for shapes alone."""
    import torch

    return Placement(torch.device("meta"), torch.float32)


def _device(device: str | None) -> torch.device:
    """A device that can compute; torch knows more names, such as `meta` and `cpu:7`, that mean nothing to a user."""
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,3})?", device):
        raise unknown("device", device, DEVICES)
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise BadSetting("--device cuda: torch finds no CUDA GPU here. Leave --device out, or give cpu.")
    if where.index is not None and where.index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise BadSetting(f"--device {device}: there is no such GPU here. Give cuda:0{f' to cuda:{last}' * (last > 0)}.")
    if where.type == "mps" and not torch.backends.mps.is_available():
        raise BadSetting("--device mps: torch finds no Apple GPU here. Leave --device out, or give cpu.")
    return where


def _fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware here (GPU, AVX512-BF16, AMX)."""
    import torch

    if device.type == "cpu":
        # Releases of torch before this call existed do not tell; they get fp32.
        told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(told.get("avx512_bf16") or told.get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

"""Where a network computes and in which number format: `--device` and `--precision`."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from twofold.errors import BadSetting, unknown

if TYPE_CHECKING:
    import torch

log = logging.getLogger("twofold")
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


def place(device: str | None, precision: str, compile: bool = False) -> Placement:
    """Resolve `--device` and `--precision` for this machine, and see that `--compile` can work."""
    import torch

    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    where = _device(device)
    if compile:
        _check_compiler(where)
    formats = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision == "auto":
        precision = "bf16" if _fast_bf16(where) else "fp32"
    elif precision == "bf16" and where.type == "cpu" and not _fast_bf16(where):
        _tell_slow()
    return Placement(where, formats[precision], compile)


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


def _check_compiler(device: torch.device) -> None:
    """torch.compile writes C++ for a CPU and C for a GPU (Triton), and finds only then that nobody compiles it."""
    asked = os.environ.get("CXX" if device.type == "cpu" else "CC", "")
    usual = ("clang++" if sys.platform == "darwin" else "g++",) if device.type == "cpu" else ("gcc", "clang")
    wanted = (asked,) if asked else usual
    if device.type != "mps" and not any(map(shutil.which, wanted)):
        raise BadSetting(
            f"--compile needs a compiler, and {' or '.join(wanted)} is not installed. Install it (g++ on Debian and "
            "Ubuntu has all of it), or leave --compile out: the numbers are the same."
        )


@cache
def _tell_slow() -> None:
    """Once: without products of its own, bfloat16 takes ten times as long as single precision, or more."""
    log.warning("this processor has no products of bfloat16, so bf16 will be many times slower than fp32 here")


def _fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware here (GPU, AVX512-BF16, AMX)."""
    import torch

    if device.type == "cpu":
        # Releases of torch before this call existed do not tell; they get fp32.
        told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(told.get("avx512_bf16") or told.get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

"""How far half precision moves the blocks of guided-diffusion's networks, and what no arithmetic could avoid.

    python bench/precision.py FIXTURE.pt [FIXTURE.pt ...]

A fixture is a state dict with its reference outputs (`x`, `t`, `y`, `b01` .., `out`) in an .npz beside it. Beside the
number formats stand two runs in float32 throughout: one on the same image rounded once to bfloat16, one with the
weights rounded once. Where these alone move a block, the network itself magnifies rounding there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twofold import results
from twofold.backbones import base as backbones
from twofold.backbones._network import DiffusionNetwork


def load(path: Path, precision: str) -> DiffusionNetwork:
    found = backbones.load(f"adm:{path}", device="cpu", precision=precision)
    assert isinstance(found, DiffusionNetwork)
    return found


def errors(backbone: DiffusionNetwork, x: Tensor, wanted: Any) -> list[float]:
    """Relative error of every block, in order."""
    labels = torch.from_numpy(wanted["y"]) if "y" in wanted else None
    numbers = [b.number for b in backbone.blocks]
    found = backbone.features(x, torch.from_numpy(wanted["t"]), numbers, labels=labels)
    truth = {n: torch.from_numpy(wanted[f"b{n:02d}"]).double() for n in numbers}
    return [float((found[n].double() - truth[n]).norm() / truth[n].norm()) for n in numbers]


def rows(path: Path) -> list[tuple[str, ...]]:
    wanted = np.load(path.with_suffix(".npz"))
    x = torch.from_numpy(wanted["x"])
    found = {name: errors(load(path, name), x, wanted) for name in ("fp32", "fp16", "bf16")}
    found["fp32, image rounded once to bf16"] = errors(load(path, "fp32"), x.bfloat16().float(), wanted)
    rounded = load(path, "fp32")
    for parameter in rounded.network.parameters():
        parameter.data = parameter.data.bfloat16().float()
    found["fp32, weights rounded once to bf16"] = errors(rounded, x, wanted)
    return [
        (path.stem, name, f"{np.median(e):.2g}", f"{max(e):.2g}", f"b = {int(np.argmax(e)) + 1}",
         f"{sum(v < 3e-2 for v in e)} of {len(e)}")
        for name, e in found.items()
    ]  # fmt: skip


if __name__ == "__main__":
    head = ("network", "arithmetic", "median error", "worst", "where", "blocks within 3e-2")
    print(results.table([head, *(row for path in sys.argv[1:] for row in rows(Path(path)))]))

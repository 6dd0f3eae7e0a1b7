"""What training with feedback costs while the diffusion network's weights want no gradients, and while they do.

    python bench/difffeed.py [--device cuda]

The second column is how the released code trains (PAPER.md 6.1). Both are measured in turn in one process.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch.utils.flop_counter import FlopCounterMode

from twofold.backbones import _unet
from twofold.backbones.base import Placement
from twofold.heads import base as heads
from twofold.records import Cell, Tap
from twofold.steps import _through
from twofold.steps._architecture import Wanted, network

BATCH, SIDE, REPEATS = 16, 32, 3


def made(device: torch.device, wanted: bool) -> _through.Through:
    torch.manual_seed(0)
    unet = network(Wanted(SIDE, 3)).eval().requires_grad_(wanted).to(device)
    backbone = _unet.backbone(unet, DDPMScheduler(), Placement(device, torch.float32), name="bench")
    middle = backbone.block("mid").number
    head: Any = heads.load("attention?tokenizer=p2&width=128")
    pairs = _through.mirror_pairs(backbone)
    return _through.Through(backbone, [Cell(Tap(middle + 2, 150.0), 0)], head, 10, "difffeed", 0, pairs)


def measured(wanted: bool, device: torch.device) -> dict[str, float]:
    """Seconds and multiplications of the backward pass, bytes kept for it and bytes of gradients."""
    through = made(device, wanted)
    chance = torch.Generator().manual_seed(0)
    x, own = (torch.randn(BATCH, 3, SIDE, SIDE, generator=chance).to(device) for _ in range(2))
    labels = torch.arange(BATCH, device=device) % 10
    weights = list(through._backbone[0].network.parameters())  # type: ignore[attr-defined]
    seconds = []
    for _ in range(REPEATS):
        kept: dict[int, int] = {}
        own_pointers = {w.data_ptr() for w in weights}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept, own: set[int] = own_pointers) -> torch.Tensor:
            if tensor.data_ptr() not in own:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            loss = torch.nn.functional.cross_entropy(through(x, own), labels)
        for p in [*weights, *through.parameters()]:
            p.grad = None
        started = time.perf_counter()
        loss.backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    gradients = sum(w.grad.nbytes for w in weights if w.grad is not None)
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(through(x, own), labels).backward()  # type: ignore[no-untyped-call]
    return {
        "backward, s": min(seconds), "forward and backward, Gflop": counter.get_total_flops() / 1e9,
        "kept for backward, MB": sum(kept.values()) / 1e6, "gradients of the network, MB": gradients / 1e6,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = torch.device(parser.parse_args().device)
    lean, wanted = measured(False, device), measured(True, device)
    print(f"{'':32}{'frozen':>12}{'wanted':>12}{'ratio':>8}")
    for name, value in lean.items():
        print(f"{name:32}{value:12.3f}{wanted[name]:12.3f}{value / wanted[name]:8.2f}")


if __name__ == "__main__":
    main()

"""How many images a forward pass takes: enough to keep the machine busy, no more than memory holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twofold.backbones.base import Backbone

if TYPE_CHECKING:
    import torch

# Operations a forward pass should have: beyond that throughput hardly grows (docs/benchmarks.md).
BUSY = {"cpu": 4e11, "other": 2e13}
LEAST = {"cpu": 2, "other": 8}
MOST = 256
# The part of free memory that activations may take.
SHARE = 0.4


def choose(backbone: Backbone, deepest: int, *, workers: int = 1) -> int:
    """The number of images a pass when blocks up to `deepest` are read: a power of two, 1 to 256.

    Memory is divided among the workers, so that they fit together.
    """
    cost, device = backbone.cost(deepest), backbone.placement.device
    kind = "cpu" if device.type in ("cpu", "meta") else "other"
    busy = BUSY[kind] / max(cost.operations, 1)
    fits = SHARE * _free(device) / workers / max(cost.memory, 1)
    images = max(int(min(max(busy, LEAST[kind]), MOST, fits)), 1)
    return 1 << (images.bit_length() - 1)


def _free(device: torch.device) -> int:
    """Bytes of memory that nobody uses."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)

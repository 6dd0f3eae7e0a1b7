"""Training images as a network takes them: in memory where they fit, else read while the network computes."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.backbones.base import DiffusionBackbone
from twofold.datasets.base import Rows
from twofold.steps import _memory

log = logging.getLogger("twofold")

Positions = NDArray[np.int64]

PIECE = 256  # images that are decoded together
DEVICE_SHARE = 0.25  # of a GPU's free memory; the rest is for the network


class Supply:
    """The images of a split, by their positions in it.

    Args:
        backbone: prepares them, and says where it computes.
        rows: where they come from.
        memory: gigabytes that they may take; None: half of what is free.

    Attributes:
        shape: (C, h, w) of an image.
        device: where the network computes.
    """

    def __init__(self, backbone: DiffusionBackbone, rows: Rows, memory: float | None = None) -> None:
        self.shape, self.device = backbone.sample_shape, backbone.placement.device
        self._backbone, self._rows = backbone, rows
        size = 4 * len(rows) * math.prod(self.shape)
        self._kept = self._whole(_home(self.device, size)) if size <= _memory.bytes_for(memory) else None
        # What was asked for last, and what comes next.
        self._line: deque[tuple[Positions, Future[Tensor]]] = deque(maxlen=2)
        self._worker = ThreadPoolExecutor(1)
        if self._kept is None:
            log.info("%s training images, %.1f GB: they are read while training", f"{len(rows):,}", size / 1e9)

    def __len__(self) -> int:
        return len(self._rows)

    def expect(self, coming: Callable[[], Positions]) -> None:
        """Begin to read images that will be asked for next; of what is in memory nobody needs to know which they are.

        Args:
            coming: gives their positions; none after the last.
        """
        if self._kept is None and len(positions := coming()):
            self._line.append((positions, self._worker.submit(self._read, positions)))

    def take(self, positions: Positions) -> Tensor:
        """The images at some positions, float32 [B, C, h, w] on the network's device."""
        if self._kept is not None:
            return self._kept[torch.from_numpy(positions).to(self._kept.device)].to(self.device)
        for expected, coming in self._line:
            if np.isin(positions, expected).all():
                places = {int(p): k for k, p in enumerate(expected)}
                return coming.result()[[places[int(p)] for p in positions]]
        return self._read(positions)

    def _read(self, positions: Positions) -> Tensor:
        return self._backbone.preprocess(self._rows.read(positions))

    def _whole(self, home: torch.device) -> Tensor:
        """All of them, some at a time, so that they are not in memory twice."""
        whole = torch.empty(len(self), *self.shape, device=home)
        for start in range(0, len(self), PIECE):
            positions = np.arange(start, min(start + PIECE, len(self)))
            whole[start : start + PIECE] = self._read(positions)
        return whole


def _home(device: torch.device, size: int) -> torch.device:
    """Where images of so many bytes are kept: with the network, unless they would take its room on a GPU."""
    fits = device.type != "cuda" or size <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
    return device if fits else torch.device("cpu")

"""Data sets that are small enough to be held in memory as one array."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.datasets.base import SPLITS, Dataset, Rows, check_split


@final
class Arrays(Dataset):
    """Images in memory; an image's index is its row."""

    def __init__(
        self,
        name: str,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        positions: Mapping[str, NDArray[np.int64]],
        classes: Sequence[str],
    ) -> None:
        """Take what a file of the room has read.

        Args:
            name: the DATA string.
            images: uint8 [N, H, H], which are grey, or [N, 3, H, H].
            labels: int64 [N], positions in `classes`.
            positions: rows of `images` of each split.
            classes: class names in the order of their labels.
        """
        grey = images.ndim == 3
        self._images = torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1) if grey else torch.from_numpy(images)
        self._labels, self._positions = labels, positions
        self.name, self.classes = name, tuple(classes)
        self.image_size, self.channels = images.shape[-1], 1 if grey else 3
        told = hashlib.sha256(np.ascontiguousarray(images).data)
        told.update(np.ascontiguousarray(labels).data)
        for split in SPLITS:
            told.update(positions[split].tobytes())
        self.fingerprint = told.hexdigest()[:16]

    def build(self, split: str) -> Rows:
        """The rows of a split."""
        check_split(self.name, split)
        index = self._positions[split]

        def read(rows: Sequence[int] | NDArray[np.int64]) -> Tensor:
            return self._images[torch.from_numpy(index[np.asarray(rows, dtype=np.int64)])]

        return Rows(self._labels[index], index, read)

"""Digits: 1,797 real scans of handwritten digits, 8 x 8, grey, ten classes; built into scikit-learn.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998 (the test part).
Splits are stratified by `carve`: 60 % train, 15 % val, 25 % test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.datasets.base import SPLITS, Dataset, Rows, carve, check_split
from twofold.errors import BadData

SHARES = (0.60, 0.15, 0.25)
BRIGHTEST = 16  # the scans count inked pixels of 4 x 4 cells, 0..16


@final
class Digits(Dataset):
    """All 1,797 scans, in scikit-learn's order."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        scans, labels = load_digits(return_X_y=True)
        grey = np.rint(scans.reshape(-1, 8, 8) * (255 / BRIGHTEST)).astype(np.uint8)
        self._images = torch.from_numpy(grey)[:, None].expand(-1, 3, -1, -1)
        self._labels = labels.astype(np.int64)
        self._positions = dict(zip(SPLITS, carve(self._labels, SHARES, salt="digits"), strict=True))
        self.name = "digits"
        self.classes = tuple("0123456789")
        self.image_size, self.channels = 8, 1
        told = hashlib.sha256(grey.tobytes() + self._labels.tobytes())
        for positions in self._positions.values():
            told.update(positions.tobytes())
        self.fingerprint = told.hexdigest()[:16]

    def build(self, split: str) -> Rows:
        """1,078 rows of train, 269 of val or 450 of test."""
        check_split(self.name, split)
        index = self._positions[split]

        def read(rows: Sequence[int] | NDArray[np.int64]) -> Tensor:
            return self._images[torch.from_numpy(index[np.asarray(rows, dtype=np.int64)])]

        return Rows(self._labels[index], index, read)


def build(argument: str) -> Digits:
    """`digits` takes nothing after its name."""
    if argument:
        raise BadData(f"digits:{argument}: digits is built in and takes no folder. Give `digits`.")
    return Digits()

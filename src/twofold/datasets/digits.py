"""Digits: 1,797 real scans of handwritten digits, 8 x 8, grey, ten classes; built into scikit-learn.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998 (the test part).
Splits are stratified by `carve`: 60 % train, 15 % val, 25 % test.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from twofold.datasets._arrays import Arrays
from twofold.datasets.base import SPLITS, carve
from twofold.errors import BadData

SHARES = (0.60, 0.15, 0.25)
BRIGHTEST = 16  # the scans count inked pixels of 4 x 4 cells, 0..16


def build(argument: str) -> Arrays:
    """`digits` takes nothing after its name; all scans, in scikit-learn's order."""
    if argument:
        raise BadData(f"digits:{argument}: digits is built in and takes no folder. Give `digits`.")
    scans, labels = load_digits(return_X_y=True)
    grey = np.rint(scans.reshape(-1, 8, 8) * (255 / BRIGHTEST)).astype(np.uint8)
    labels = labels.astype(np.int64)
    positions = dict(zip(SPLITS, carve(labels, SHARES, salt="digits"), strict=True))
    return Arrays("digits", grey, labels, positions, "0123456789")

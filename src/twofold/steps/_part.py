"""A part of a data set's rows, to try things on or to measure with."""

from __future__ import annotations

import hashlib
from typing import final

import numpy as np
from numpy.typing import NDArray

from twofold import noise
from twofold.datasets.base import Dataset, Rows, check_split

PARTED = ("train", "val")


@final
class Part(Dataset):
    """At most a share of each class of train and val, drawn by the seed; images keep their numbers, and so their noise.

    Args:
        inner: the data set.
        share: of each class.
        seed: of the drawing.
        least: images of each class of train in any case; of val it is one.
    """

    def __init__(self, inner: Dataset, share: float, seed: int, *, least: int) -> None:
        self._inner, self._share, self._seed, self._least = inner, share, seed, least
        self.name, self.classes = inner.name, inner.classes
        self.image_size, self.channels, self.skipped = inner.image_size, inner.channels, inner.skipped
        told = hashlib.sha256(inner.fingerprint.encode())
        for split in PARTED:
            told.update(self._rows(inner.build(split).labels, split).tobytes())
        self.fingerprint = told.hexdigest()[:16]

    def image_name(self, index: int) -> str:
        """As the whole data set calls it."""
        return self._inner.image_name(index)

    def build(self, split: str) -> Rows:
        """The rows of a split that are in it."""
        whole = self._inner.build(split)
        rows = self._rows(whole.labels, split)
        return whole.some(rows)

    def _rows(self, labels: NDArray[np.int64], split: str) -> NDArray[np.int64]:
        least, kept = self._least if split == "train" else 1, []
        for label in np.unique(labels):
            own = np.flatnonzero(labels == label)
            chance = noise.generator(self._seed, int(label), draw=2, purpose=noise.SHOTS)
            kept.append(chance.permutation(own)[: max(least, int(self._share * len(own)))])
        return np.sort(np.concatenate(kept))


def few(rows: Rows, most: int) -> Rows:
    """At most so many rows of a split, always the same, drawn at random: in a folder neighbours are of one class."""
    if len(rows) <= most:
        return rows
    return rows.some(np.sort(noise.generator(0, 0, draw=4, purpose=noise.SHOTS).permutation(len(rows))[:most]))


@final
class Drawn(Dataset):
    """Some rows of one split in random order, drawn by the seed; images keep their numbers, and so their noise.

    A store of it is read once, front to back, and any stretch of its rows is a random sample; as they lie in a folder,
    neighbouring rows are of one class.

    Args:
        inner: the data set.
        split: whose rows.
        rows: how many, or all where there are fewer.
        seed: of the drawing.
    """

    def __init__(self, inner: Dataset, split: str, rows: int, seed: int) -> None:
        self._split, whole = split, inner.build(split)
        order = noise.generator(seed, 0, draw=3, purpose=noise.SHOTS).permutation(len(whole))
        self._rows = whole.some(order[:rows])
        self.name, self.classes = inner.name, inner.classes
        self.image_size, self.channels, self.skipped = inner.image_size, inner.channels, inner.skipped
        told = f"{inner.fingerprint} {split} {self._rows.index.tolist()}"
        self.fingerprint = hashlib.sha256(told.encode()).hexdigest()[:16]

    def build(self, split: str) -> Rows:
        """The rows drawn; of other splits there are none."""
        check_split(self.name, split)
        return self._rows if split == self._split else self._rows.some(np.empty(0, np.int64))

"""Few labels: K rows a class, drawn by the seed alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twofold import noise
from twofold.datasets.base import Dataset
from twofold.errors import BadSetting


def check(dataset: Dataset, shots: int) -> None:
    """Raise `BadSetting` where train has a class with fewer images, before anything is read."""
    counts = np.bincount(dataset.build("train").labels, minlength=len(dataset.classes))
    least = int(counts.argmin())
    if shots > counts[least]:
        raise BadSetting(
            f"--shots {shots}: {dataset.name} has only {counts[least]} training images of {dataset.classes[least]}. "
            f"Give --shots {counts[least]} or fewer."
        )


def draw(labels: NDArray[np.int64], shots: int, seed: int) -> NDArray[np.int64]:
    """Positions of `shots` rows of each class, sorted; the same for every table of the same labels.

    Raises:
        BadSetting: a class has fewer rows.
    """
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if shots > count:
            raise BadSetting(f"--shots {shots}: class {label} has only {count} rows. Give --shots {count} or fewer.")
    return _some(labels, shots, seed, draw=0)


def at_most(labels: NDArray[np.int64], shots: int, seed: int) -> NDArray[np.int64]:
    """As `draw`, but other rows, and classes with fewer rows give all they have."""
    return _some(labels, shots, seed, draw=1)


def _some(labels: NDArray[np.int64], shots: int, seed: int, *, draw: int) -> NDArray[np.int64]:
    parts = []
    for label in np.unique(labels):
        chance = noise.generator(seed, int(label), draw=draw, purpose=noise.SHOTS)
        parts.append(chance.permutation(np.flatnonzero(labels == label))[:shots])
    return np.sort(np.concatenate(parts))

"""Few labels: K rows a class, drawn by the seed alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twofold import noise
from twofold.errors import BadSetting


def draw(labels: NDArray[np.int64], shots: int, seed: int) -> NDArray[np.int64]:
    """Positions of `shots` rows of each class, sorted; the same for every table of the same labels.

    Raises:
        BadSetting: a class has fewer rows.
    """
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if shots > len(rows):
            raise BadSetting(
                f"--shots {shots}: class {label} has only {len(rows)} rows. Give --shots {len(rows)} or fewer."
            )
        chance = noise.generator(seed, int(label), purpose=noise.SHOTS)
        chosen.append(chance.permutation(rows)[:shots])
    return np.sort(np.concatenate(chosen))


def at_most(labels: NDArray[np.int64], shots: int, seed: int) -> NDArray[np.int64]:
    """As `draw`, but classes with fewer rows give all they have."""
    parts = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        chance = noise.generator(seed, int(label), draw=1, purpose=noise.SHOTS)
        parts.append(chance.permutation(rows)[:shots])
    return np.sort(np.concatenate(parts))

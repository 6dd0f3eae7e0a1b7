"""How large runs of the scale `small` are: all there is of everything, or what some minutes have room for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from twofold import files
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset

SPARE = 0.75  # of the minutes that estimates may fill; the rest is for what they do not count
SALT = "reproduce"  # of the order in which images are taken
VAL = datasets.SHARES["val"] / (datasets.SHARES["train"] + datasets.SHARES["val"])  # of a list of labels


@dataclass(frozen=True)
class Sizes:
    """What runs cost hangs on these.

    Attributes:
        rows: labelled images that a map of `select` is made of; 0: all.
        labels: labelled images that heads learn from and are chosen by; 0: all.
        trials: draws of these over which a cell of the map is averaged, where there are more rows than labels.
        seeds: of every score.
        epochs: of what is trained through the network.
        updates: of heads of maps.
        num, steps: images to generate, and their noise steps.
        alike: images on which blocks are compared.
        rival: images that a rival sees, as a share of those that the model saw.
    """

    rows: int = 0
    labels: int = 0
    trials: int = 5
    seeds: int = 3
    epochs: int = 60
    updates: int = 200
    num: int = 2000
    steps: int = 50
    alike: int = 2000
    rival: float = 1.0


WORDS = {
    "rows": "labelled images of a map", "labels": "labelled images of heads", "trials": "draws a cell",
    "seeds": "seeds", "epochs": "epochs", "updates": "updates of heads of maps", "num": "generated images",
    "steps": "their steps", "alike": "images of CKA", "rival": "share of the model's images that rivals see",
}  # fmt: skip
# From everything down; the first that fits is taken. Rivals keep their budget longest that decides for or against them.
LADDER = (
    Sizes(),
    Sizes(rows=10_000, labels=2500, trials=3),
    Sizes(10_000, 2500, 3, seeds=2, epochs=30, updates=100, num=1000, steps=25, alike=1000),
    Sizes(10_000, 1250, 3, seeds=2, epochs=30, updates=100, num=1000, steps=25, alike=1000, rival=1 / 2),
    Sizes(5000, 1250, 3, seeds=2, epochs=30, updates=100, num=1000, steps=25, alike=1000, rival=1 / 4),
    Sizes(5000, 1250, 3, seeds=1, epochs=30, updates=100, num=1000, steps=25, alike=1000, rival=1 / 8),
    Sizes(5000, 1250, 3, seeds=1, epochs=20, updates=100, num=1000, steps=20, alike=1000, rival=1 / 16),
    Sizes(2500, 625, 3, seeds=1, epochs=20, updates=50, num=1000, steps=20, alike=500, rival=1 / 16),
    Sizes(1250, 625, 2, seeds=1, epochs=10, updates=50, num=500, steps=10, alike=500, rival=1 / 32),
)


@dataclass(frozen=True)
class Part:
    """Some of the labelled images of a data set, or all; test stays whole.

    Attributes:
        name: the DATA string.
        count: images of train, val and test.
        classes: how many.
        least: images of train in the smallest class.
        listed: the file of names, and the names; empty where it is everything.
    """

    name: str
    count: tuple[int, int, int]
    classes: int
    least: int
    listed: tuple[Path, tuple[str, ...]] | None = None

    def write(self) -> None:
        """Leave the list of names where the DATA string says it is."""
        if self.listed is not None:
            path, names = self.listed
            files.write_text(path, "".join(f"{name}\n" for name in names))


def part(dataset: Dataset, data: str, total: int, path: Path) -> Part:
    """So many labelled images of train and val, each class its share, in an order that never changes.

    A smaller part lies within a larger one. All where `total` is 0, where there are no more, or where DATA itself
    names few.

    Args:
        dataset, data: it, and its DATA string.
        total: images.
        path: of the list of their names.
    """
    rows = [dataset.build(split) for split in datasets.SPLITS]
    labels = np.concatenate([one.labels for one in rows[:2]])
    if not 0 < total < len(labels) or datasets.LABELS in data:
        return Part(data, _lengths(rows), len(dataset.classes), _smallest(rows[0].labels))
    kept = datasets.carve(labels, (total / len(labels), 1 - total / len(labels)), salt=SALT)[0]
    index = np.concatenate([one.index for one in rows[:2]])[kept]
    val = round(VAL * len(kept))
    name = f"{data}{'&' if '?' in data else '?'}{datasets.LABELS}{path}"
    listed = path, tuple(dataset.image_name(number) for number in index.tolist())
    count = len(kept) - val, val, len(rows[2])
    return Part(name, count, len(dataset.classes), int((1 - VAL) * _smallest(labels[kept])), listed)


def _lengths(rows: list[datasets.Rows]) -> tuple[int, int, int]:
    train, val, test = map(len, rows)
    return train, val, test


def _smallest(labels: Any) -> int:
    """Images of the smallest class."""
    return int(np.unique(labels, return_counts=True)[1].min())


def fitting(seconds: Callable[[Sizes], float], minutes: float, told: dict[str, Any]) -> tuple[Sizes, float]:
    """The largest sizes whose estimate leaves some room in so many minutes, else the smallest; and the estimate.

    Args:
        seconds: estimates what the runs take.
        minutes: that they may take.
        told: sizes that were asked for, which are kept.
    """
    for rung in LADDER:
        sizes = replace(rung, **told)
        about = seconds(sizes)
        if about <= SPARE * 60 * minutes:
            break
    return sizes, about


def remembered(path: Path, asked: dict[str, Any]) -> Sizes | None:
    """The sizes that the same request got before, so that the same command goes on with the same runs."""
    if not path.is_file():
        return None
    with files.undamaged(path, "Delete it; sizes are then found again."):
        found = files.read_json(path, {"asked": dict, "sizes": dict})
        return Sizes(**found["sizes"]) if found["asked"] == asked else None


def remember(path: Path, asked: dict[str, Any], sizes: Sizes) -> None:
    """Keep them for the next time."""
    files.write_json(path, {"asked": asked, "sizes": asdict(sizes)})

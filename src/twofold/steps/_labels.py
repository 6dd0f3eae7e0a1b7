"""Labels that a head can learn from and be judged by, checked before any work."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset
from twofold.errors import BadData

MOST_NAMED = 3


def check(dataset: Dataset) -> None:
    """Hold the labels of train and val against what choosing needs; test stays closed.

    Raises:
        BadData: labels are missing or no whole numbers, there are fewer images than classes, train or val lacks a
            class, or there is one alone.
    """
    train, val = (whole(dataset, split) for split in ("train", "val"))
    if len(train) < len(dataset.classes):
        raise BadData(
            f"train of {dataset.name} has {len(train)} images for {len(dataset.classes)} classes. Give one a class, or "
            "better many."
        )
    datasets.check_classes(dataset)
    lacking = [dataset.classes[label] for label in np.setdiff1d(train, val)]
    if lacking:
        more = f" and {len(lacking) - MOST_NAMED} more" if len(lacking) > MOST_NAMED else ""
        raise BadData(
            f"val of {dataset.name} has no image of {', '.join(lacking[:MOST_NAMED])}{more}, so nothing could be "
            "chosen for it. Give val an image of every class, or more images a class so that one can be carved."
        )


def whole(dataset: Dataset, split: str) -> NDArray[np.int64]:
    """A split's labels, all there and whole."""
    labels = np.asarray(dataset.build(split).labels)
    where = f"{split} of {dataset.name}"
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise BadData(f"The labels of {where} are {labels.dtype} of shape {labels.shape}; whole numbers are needed.")
    if not len(labels):
        raise BadData(f"{where} has no images. Give more, or a split of its own.")
    missing = int(((labels < 0) | (labels >= len(dataset.classes))).sum())
    if missing:
        raise BadData(
            f"{missing} of {len(labels)} images in {where} have no label (numbers 0 to {len(dataset.classes) - 1} are "
            "labels). Label them or leave them out."
        )
    return labels

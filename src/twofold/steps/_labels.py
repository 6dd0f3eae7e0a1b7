"""Labels that a head can learn from and be judged by, checked before any work."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from twofold.datasets.base import Dataset
from twofold.errors import BadData

log = logging.getLogger("twofold")
MOST_NAMED = 3


def check(dataset: Dataset, *, tested: bool) -> None:
    """Hold the labels of a data set against what choosing and testing need.

    Args:
        dataset: its train and val are looked at.
        tested: whether test is looked at too; what chooses must not.

    Raises:
        BadData: labels are missing or no whole numbers, there are fewer images than classes, or val lacks a class.
    """
    found = {split: _whole(dataset, split) for split in ("train", "val", *(["test"] if tested else []))}
    train = found["train"]
    if len(dataset.classes) < 2 or len(np.unique(train)) < 2:
        only = f" ({dataset.classes[0]})" if len(dataset.classes) == 1 else ""
        raise BadData(f"train of {dataset.name} has one class{only}; to classify takes two or more, a folder each.")
    if len(train) < len(dataset.classes):
        raise BadData(
            f"train of {dataset.name} has {len(train)} images for {len(dataset.classes)} classes. Give one a class, or "
            "better many."
        )
    if lacking := _named(dataset, np.setdiff1d(train, found["val"])):
        raise BadData(
            f"val of {dataset.name} has no image of {lacking}, so nothing could be chosen for it. Give val an image of "
            "every class, or more images a class so that one can be carved."
        )
    if tested and (strange := _named(dataset, np.setdiff1d(found["test"], train))):
        log.warning("train of %s has no image of %s: no head can name it in test.", dataset.name, strange)


def _whole(dataset: Dataset, split: str) -> NDArray[np.int64]:
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


def _named(dataset: Dataset, labels: NDArray[np.int64]) -> str:
    """Some of these classes by name; empty where there is none."""
    names = [dataset.classes[label] for label in labels[:MOST_NAMED]]
    rest = f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else ""
    return f"{', '.join(names)}{rest}" if names else ""

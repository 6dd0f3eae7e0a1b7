"""What every data set promises, and how a DATA string becomes one.

A data set gives raw uint8 images and knows nothing of networks; size and range belong to the backbone.
`test` is never used to choose anything: a step that chooses opens its data with `sealed=("test",)`.
"""

from __future__ import annotations

import hashlib
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twofold import registry
from twofold.errors import BadData, unknown

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("twofold")

SPLITS = ("train", "val", "test")
ON_ERROR = ("stop", "skip")
ON_ERROR_HELP = "what becomes of an image that does not decode: an error, or left out and listed in run and scores"
LABELS = "labels="
# Parts that splits get where a data set has none of its own.
SHARES = {"train": 0.60, "val": 0.15, "test": 0.25}


@dataclass(frozen=True)
class Rows:
    """The images of one split.

    Attributes:
        labels: int64 [N], positions in the data set's `classes`.
        index: int64 [N], the image's own number in the whole data set; noise belongs to it.
        read: positions -> uint8 [B, 3, H, W], or a list of [3, H, W] where sizes differ.
    """

    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    read: Callable[[Sequence[int] | NDArray[np.int64]], Tensor | Sequence[Tensor]]

    def __len__(self) -> int:
        return len(self.index)

    def some(self, positions: NDArray[np.int64]) -> Rows:
        """The rows at some positions."""
        return Rows(
            self.labels[positions],
            self.index[positions],
            lambda wanted: self.read(positions[np.asarray(wanted, dtype=np.int64)]),
        )


class Dataset(ABC):
    """Images with labels in fixed splits.

    Attributes:
        name: the DATA string.
        classes: class names; a label is a position in it.
        fingerprint: hash of everything that features depend on: images, labels, index and splits.
        image_size: the images' own side, or None where sizes differ.
        channels: 1 where every image is grey, else 3.
        skipped: names of the images that were left out because they do not decode.
    """

    name: str
    classes: tuple[str, ...]
    fingerprint: str
    image_size: int | None
    channels: int
    skipped: tuple[str, ...] = ()

    @abstractmethod
    def build(self, split: str) -> Rows:
        """The rows of `train`, `val` or `test`."""

    def image_name(self, index: int) -> str:
        """What an image is called: its file's name where it has one, else its number."""
        return str(index)

    @property
    def provenance(self) -> dict[str, list[str]]:
        """What scores say of the data beside its name: `skipped`, where images were left out."""
        return {"skipped": list(self.skipped)} if self.skipped else {}

    def tell_skipped(self) -> None:
        """Log the images that were left out, into the log of a run that is open."""
        for name in self.skipped:
            log.warning("left out, since it does not decode: %s", name)


def load(data: str, *, sealed: tuple[str, ...] = (), on_error: str = "stop") -> Dataset:
    """The data set that a DATA string names, for instance `digits`.

    Args:
        data: the string; `labels=FILE` behind its question mark leaves in train and val what that list names.
        sealed: splits that cannot be opened.
        on_error: what becomes of an image that does not decode: `stop`, an error when it is read, or `skip`.

    Raises:
        UnknownName: no such data set; the message lists the near names.
    """
    name = re.split("[:?]", data, maxsplit=1)[0]
    argument = data.removeprefix(name).removeprefix(":")
    if name not in registry.names("datasets"):
        raise unknown("data set", name, registry.names("datasets"))
    build: Callable[[str], Dataset] = registry.find("datasets", name).build
    from twofold.datasets import _parts

    argument, labels = _without_labels(argument)
    dataset = build(argument)
    if labels is not None:
        dataset = _parts.Labelled(dataset, Path(labels), data)
    if on_error == "skip":
        dataset = _parts.Skipping(dataset)
    return _parts.Sealed(dataset, sealed) if sealed else dataset


def _without_labels(argument: str) -> tuple[str, str | None]:
    """What stands behind the colon without `labels=FILE`, and that file."""
    place, _, words = argument.rpartition("?")
    others = [word for word in words.split("&") if not word.startswith(LABELS)]
    found = [word.removeprefix(LABELS) for word in words.split("&") if word.startswith(LABELS)]
    if not found:
        return argument, None
    return "?".join([place, *filter(None, ["&".join(others)])]), found[0]


def check_classes(dataset: Dataset) -> None:
    """Raise where a head has nothing to learn: one class only, or one that has no image in train.

    Raises:
        BadData: with the names of the classes.
    """
    if len(dataset.classes) < 2:
        raise BadData(
            f"{dataset.name} has one class only ({dataset.classes[0]}), so there is nothing to tell apart. "
            "Give one folder a class; images without classes are for pretrain."
        )
    learned = set(dataset.build("train").labels.tolist())
    alone = [name for k, name in enumerate(dataset.classes) if k not in learned]
    if alone:
        more = f" and {len(alone) - 3:,} more" if len(alone) > 3 else ""
        raise BadData(
            f"{dataset.name}: train has no image of {', '.join(alone[:3])}{more}, other splits have. "
            "Add training images of that class, or take its other images out."
        )


def check_split(dataset: str, split: str) -> None:
    """Raise where a split's name is not one of the three."""
    if split not in SPLITS:
        raise unknown(f"split of {dataset}", split, SPLITS)


def carve(labels: NDArray[np.int64], shares: Sequence[float], *, salt: str) -> list[NDArray[np.int64]]:
    """Split positions into parts of fixed shares, class by class.

    The rule: within a class, images are put in the order of the SHA-256 of `salt:position` and cut at the
    rounded shares. It needs no random generator, so it holds for ever and on every machine.

    Args:
        labels: int64 [N].
        shares: the parts' sizes; they add up to 1.
        salt: name of the data set.

    Returns:
        sorted positions, one array a share.
    """
    parts: list[list[int]] = [[] for _ in shares]
    cuts = np.cumsum(shares)
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label), key=lambda position: _place(salt, int(position)))
        ends = [round(float(cut) * len(members)) for cut in cuts]
        for part, start, end in zip(parts, [0, *ends[:-1]], ends, strict=True):
            part.extend(int(position) for position in members[start:end])
    return [np.array(sorted(part), dtype=np.int64) for part in parts]


def complete(
    own: Mapping[str, NDArray[np.int64]], labels: NDArray[np.int64], *, salt: str
) -> dict[str, NDArray[np.int64]]:
    """All three splits: a data set's own, and those it lacks carved from its train in the proportions of `SHARES`.

    Args:
        own: sorted positions of the splits there are; `train` is one of them.
        labels: int64 [N] of the whole data set.
        salt: see `carve`.
    """
    rest = own["train"]
    lacking = [split for split in SPLITS if split == "train" or split not in own]
    total = sum(SHARES[split] for split in lacking)
    parts = carve(labels[rest], [SHARES[split] / total for split in lacking], salt=salt)
    return {**own, **{split: rest[part] for split, part in zip(lacking, parts, strict=True)}}


def _place(salt: str, position: int) -> str:
    return hashlib.sha256(f"{salt}:{position}".encode()).hexdigest()

"""A data set seen through something: with splits sealed, without what does not decode, with few labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from twofold.datasets import _survey
from twofold.datasets.base import SPLITS, Dataset, Rows, check_split, complete
from twofold.errors import BadData, SealedSplit

if TYPE_CHECKING:
    from torch import Tensor


class Around(Dataset):
    """What it does not say itself, the data set inside says."""

    def __init__(self, inner: Dataset) -> None:
        self._inner = inner
        self.name, self.classes = inner.name, inner.classes
        self.fingerprint, self.skipped = inner.fingerprint, inner.skipped

    @property
    def image_size(self) -> int | None:  # type: ignore[override]
        """Of the data set inside."""
        return self._inner.image_size

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Of the data set inside."""
        return self._inner.channels

    def build(self, split: str) -> Rows:
        """Of the data set inside."""
        return self._inner.build(split)

    def image_name(self, index: int) -> str:
        """Of the data set inside."""
        return self._inner.image_name(index)


@final
class Sealed(Around):
    """Some of the splits cannot be opened, whoever asks."""

    def __init__(self, inner: Dataset, sealed: tuple[str, ...]) -> None:
        super().__init__(inner)
        self._sealed = sealed

    def build(self, split: str) -> Rows:
        """The rows of a split that is not sealed."""
        if split in self._sealed:
            raise SealedSplit(f"The {split} split of {self.name} is sealed here: what chooses must not see it.")
        return super().build(split)


@final
class Skipping(Around):
    """Images that do not decode are left out; the others keep their index and their split.

    All images are decoded once to find them, so everything after this knows how many rows there are.
    """

    def __init__(self, inner: Dataset) -> None:
        """Decode everything.

        Raises:
            BadData: no image of a split decodes.
        """
        super().__init__(inner)
        seen = _survey.survey(inner, SPLITS, lambda image: None)
        broken = sorted(one.index for one in seen if one.problem)
        self._broken = np.array(broken, dtype=np.int64)
        self.skipped = tuple(inner.image_name(index) for index in broken)
        if broken:
            self.fingerprint = _hash(inner.fingerprint, "without", broken)
        for split in SPLITS:
            if len(inner.build(split)) and not len(self.build(split)):
                raise BadData(f"{self.name}: no image of {split} decodes, the first is {self.skipped[0]}. Mend them.")

    def build(self, split: str) -> Rows:
        """The rows whose images decode."""
        rows = self._inner.build(split)
        return rows.some(np.flatnonzero(~np.isin(rows.index, self._broken)))


@final
class Labelled(Around):
    """Train and val together are the images that a list names; val is carved from them, test stays whole."""

    def __init__(self, inner: Dataset, path: Path, name: str) -> None:
        """Read the list.

        Args:
            inner: the data set.
            path: a text file, the name of an image a line, or the end of its path.
            name: the DATA string with the list in it.

        Raises:
            BadData: no such file, or a name that is of no image, of several or of one in test.
        """
        super().__init__(inner)
        self.name = name
        own = [inner.build(split) for split in ("train", "val")]
        index = np.concatenate([rows.index for rows in own])
        labels = np.concatenate([rows.labels for rows in own])
        kept = np.flatnonzero(np.isin(index, _listed(inner, path, index)))
        kept = kept[np.argsort(index[kept])]
        parts = complete({"train": np.arange(len(kept)), "test": np.empty(0, np.int64)}, labels[kept], salt="labels")
        self._index = {split: index[kept[parts[split]]] for split in ("train", "val")}
        self.fingerprint = _hash(inner.fingerprint, "labels of", index[kept].tolist())

    def build(self, split: str) -> Rows:
        """The rows of test, or those of train or val that the list names."""
        check_split(self.name, split)
        if split == "test":
            return self._inner.build(split)
        return _gathered([self._inner.build(part) for part in ("train", "val")], self._index[split])


def _listed(dataset: Dataset, path: Path, index: NDArray[np.int64]) -> list[int]:
    """The numbers of the images that a list names."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{dataset.name}: the list of labels {path} cannot be read as text ({error}).") from error
    ends: dict[str, list[int]] = {}
    for number in index.tolist():
        ends.setdefault(dataset.image_name(number).rpartition("/")[2], []).append(number)
    found = []
    for line in filter(None, lines):
        near = ends.get(line.rpartition("/")[2], [])
        named = [number for number in near if f"/{dataset.image_name(number)}".endswith(f"/{line}")]
        if len(named) != 1:
            what = f"{len(named)} images" if named else "no image"
            raise BadData(
                f"{path} names {line}, which is {what} of train in {dataset.name}. "
                "Give one image a line, by the end of its path that is its own."
            )
        found += named
    if not found:
        raise BadData(f"{path} names no image. Give one image of {dataset.name} a line.")
    return found


def _gathered(parts: Sequence[Rows], index: NDArray[np.int64]) -> Rows:
    """The rows of some images, out of two splits."""
    whole = np.concatenate([rows.index for rows in parts])
    labels = np.concatenate([rows.labels for rows in parts])
    order = np.argsort(whole)
    positions = order[np.searchsorted(whole, index, sorter=order)]
    first = len(parts[0])

    def read(wanted: Sequence[int] | NDArray[np.int64]) -> list[Tensor]:
        return [
            parts[0].read([k])[0] if k < first else parts[1].read([k - first])[0]
            for k in positions[_array(wanted)].tolist()
        ]

    return Rows(labels[positions], index, read)


def _array(wanted: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(wanted, dtype=np.int64)


def _hash(inner: str, what: str, index: Iterable[int]) -> str:
    return hashlib.sha256(f"{inner} {what} {','.join(map(str, index))}".encode()).hexdigest()[:16]

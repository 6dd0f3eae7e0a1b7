"""Data sets whose images are encoded files: on disk, in archives, or in the cells of a table."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, final

import numpy as np
from numpy.typing import NDArray

from twofold.datasets import _decode
from twofold.datasets.base import SPLITS, Dataset, Rows, check_split, complete
from twofold.errors import BadData

if TYPE_CHECKING:
    from torch import Tensor

UNLABELLED = "images"


class Source(Protocol):
    """Where the bytes of numbered image files lie."""

    @property
    def names(self) -> Sequence[str]:
        """What the files are called, the same on every machine; parts are joined by slashes."""

    def sizes(self) -> Sequence[int]:
        """Bytes of each file."""

    def open(self, position: int) -> Path | BinaryIO:
        """One file, for Pillow."""

    def where(self, position: int) -> str:
        """One file, for people."""


@final
@dataclass(frozen=True)
class OnDisk:
    """Files below a folder."""

    root: Path
    names: Sequence[str]

    def sizes(self) -> Sequence[int]:
        """Bytes of each file."""
        return [os.stat(f"{self.root}/{name}").st_size for name in self.names]  # noqa: PTH116 - three times as fast

    def open(self, position: int) -> Path:
        """The path of a file."""
        return self.root / self.names[position]

    def where(self, position: int) -> str:
        """The path of a file."""
        return str(self.open(position))


@final
class Files(Dataset):
    """Encoded images, decoded when they are read."""

    def __init__(
        self,
        name: str,
        source: Source,
        labels: Sequence[str],
        splits: Sequence[str],
        *,
        own: Sequence[str],
        salt: str,
        classes: Sequence[str] | None = None,
    ) -> None:
        """Take the images in the order given; it decides their index, so it must be the same on every machine.

        Args:
            name: the DATA string.
            source: the images.
            labels: the name of each image's class.
            splits: `train`, `val` or `test` of each image.
            own: the splits that are the data set's own; the others are carved from its train.
            salt: what the carving belongs to, see `carve`.
            classes: class names in the order of their labels; by default those of `labels`, sorted.
        """
        self.name, self._source = name, source
        self.classes = tuple(classes or sorted(set(labels)))
        number = {label: k for k, label in enumerate(self.classes)}
        self._labels = np.array([number[label] for label in labels], dtype=np.int64)
        named = np.array(splits)
        positions = {split: np.flatnonzero(named == split) for split in own}
        self._positions = complete(positions, self._labels, salt=salt)
        self.fingerprint = self._hash()

    def build(self, split: str) -> Rows:
        """The rows of a split; images are decoded when they are read."""
        check_split(self.name, split)
        index = self._positions[split]

        def read(rows: Sequence[int] | NDArray[np.int64]) -> list[Tensor]:
            return [self._decode(int(index[int(row)])) for row in rows]

        return Rows(self._labels[index], index, read)

    def image_name(self, index: int) -> str:
        """The file's name below the data set's folder."""
        return self._source.names[index]

    @cached_property
    def image_size(self) -> int | None:  # type: ignore[override]
        """The side that all images share, read from their headers until two differ; None where they do."""
        sides: set[int] = set()
        for width, height, _ in self._headers():
            sides |= {width, height}
            if len(sides) > 1:
                return None
        return sides.pop() if sides else None

    @cached_property
    def channels(self) -> int:  # type: ignore[override]
        """1 where every image is grey."""
        return 1 if all(mode in ("L", "1", "I;16") for _, _, mode in self._headers()) else 3

    def _decode(self, position: int) -> Tensor:
        return _decode.decode(self._source.open(position), partial(self._source.where, position))

    def _headers(self) -> Iterator[tuple[int, int, str]]:
        """Of the images that have one; what does not decode is an error when it is read."""
        for position in range(len(self._labels)):
            with suppress(BadData):
                yield _decode.header(self._source.open(position))

    def _hash(self) -> str:
        told = hashlib.sha256("\n".join(self.classes).encode())
        for name, size, label in zip(self._source.names, self._source.sizes(), self._labels, strict=True):
            told.update(f"{name} {size} {label}\n".encode())
        for split in SPLITS:
            told.update(self._positions[split].tobytes())
        return told.hexdigest()[:16]


def in_folders(top: Path) -> list[tuple[str, str]]:
    """(class, name below `top`) of every image; images beside the class folders count only where there are none."""
    with os.scandir(top) as entries:
        classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    found = [(name, f"{name}/{image}") for name in classes for image in images_below(top / name)]
    return found or [(UNLABELLED, image) for image in images_below(top, deep=False)]


def images_below(top: Path, *, deep: bool = True) -> list[str]:
    """Names below `top` of its image files, in the order of their parts.

    Raises:
        OSError: a folder cannot be read.
    """
    found: list[str] = []
    for folder, inner, names in os.walk(top, onerror=_stop):
        below = os.path.relpath(folder, top)
        found += [name if below == "." else f"{below}/{name}" for name in names if is_image(name)]
        if not deep:
            inner.clear()
    return sorted(found, key=lambda name: name.split("/"))


def is_image(name: str) -> bool:
    """Whether a file's name says that it is an image."""
    return name.lower().endswith(_decode.SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def _stop(error: OSError) -> None:
    raise error

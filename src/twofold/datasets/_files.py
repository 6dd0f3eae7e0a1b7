"""Data sets whose images are files: a list of paths with a class and a split each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from twofold.datasets import _decode
from twofold.datasets.base import SPLITS, Dataset, Rows, check_split, complete

UNLABELLED = "images"


@dataclass(frozen=True)
class Item:
    """One image: its file, the name of its class, and `train`, `val` or `test`."""

    path: Path
    label: str
    split: str


@final
class Files(Dataset):
    """Image files, decoded when they are read."""

    def __init__(
        self,
        name: str,
        root: Path,
        items: Sequence[Item],
        *,
        splits: Sequence[str],
        salt: str,
        classes: Sequence[str] | None = None,
    ) -> None:
        """Take the images in the order given; it decides their index, so it must be the same on every machine.

        Args:
            name: the DATA string.
            root: the folder all files lie under.
            items: the images.
            splits: the splits that are the data set's own; the others are carved from its train.
            salt: what the carving belongs to, see `carve`.
            classes: class names in the order of their labels; by default those of `items`, sorted.
        """
        self.name, self.root = name, root
        self.classes = tuple(classes or sorted({item.label for item in items}))
        number = {label: k for k, label in enumerate(self.classes)}
        self._paths = [item.path for item in items]
        self._labels = np.array([number[item.label] for item in items], dtype=np.int64)
        named = np.array([item.split for item in items])
        own = {split: np.flatnonzero(named == split) for split in splits}
        self._positions = complete(own, self._labels, salt=salt)
        self.fingerprint = self._hash()

    def build(self, split: str) -> Rows:
        """The rows of a split; images are decoded when they are read."""
        check_split(self.name, split)
        index = self._positions[split]

        def read(rows: Sequence[int] | NDArray[np.int64]) -> list[Tensor]:
            return [_decode.decode(self._paths[index[int(row)]]) for row in rows]

        return Rows(self._labels[index], index, read)

    @cached_property
    def image_size(self) -> int | None:  # type: ignore[override]
        """The side that all images share, read from their headers; None where they differ."""
        sides = {side for width, height, _ in self._headers for side in (width, height)}
        return sides.pop() if len(sides) == 1 else None

    @cached_property
    def channels(self) -> int:  # type: ignore[override]
        """1 where every image is grey."""
        return 1 if {mode for _, _, mode in self._headers} <= {"L", "1", "I;16"} else 3

    @cached_property
    def _headers(self) -> set[tuple[int, int, str]]:
        return {_decode.header(path) for path in self._paths}

    def _hash(self) -> str:
        told = hashlib.sha256("\n".join(self.classes).encode())
        for path, label in zip(self._paths, self._labels, strict=True):
            told.update(f"{path.relative_to(self.root)} {path.stat().st_size} {label}\n".encode())
        for split in SPLITS:
            told.update(self._positions[split].tobytes())
        return told.hexdigest()[:16]


def in_folders(top: Path) -> list[tuple[str, Path]]:
    """(class, path) of every image below a folder; images beside the class folders count only where there are none."""
    classes = sorted(p for p in top.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = [(c.name, path) for c in classes for path in sorted(c.rglob("*")) if is_image(path)]
    return found or [(UNLABELLED, path) for path in sorted(top.iterdir()) if is_image(path)]


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is an image."""
    return path.suffix.lower() in _decode.SUFFIXES and not path.name.startswith(".") and path.is_file()

"""A folder of images: one folder a class, with or without `train`, `val` and `test` above; or no classes at all.

DIR/train/<class>/*.jpg   DIR/val/<class>/*   DIR/test/<class>/*     splits that are missing are carved from train
DIR/<class>/*.png                                                    60 % train, 15 % val, 25 % test by `carve`
DIR/*.png                                                            one class; for pre-training and for samples
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from twofold.datasets import _decode
from twofold.datasets.base import SPLITS, Dataset, Rows, carve, check_split
from twofold.errors import BadData

SHARES = {"train": 0.60, "val": 0.15, "test": 0.25}
UNLABELLED = "images"


@final
class Folder(Dataset):
    """Every image file below a folder, in the order of their paths."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = f"folder:{root}"
        given = [split for split in SPLITS if (root / split).is_dir()]
        tops = {split: root / split for split in given} if "train" in given else {"": root}
        found = [(split, *entry) for split, top in tops.items() for entry in _images(top)]
        if not found:
            raise BadData(f"folder:{root} holds no images ({', '.join(_decode.SUFFIXES)}). Give a folder with images.")
        self.classes = tuple(sorted({label for _, label, _ in found}))
        self._paths = [path for _, _, path in found]
        self._labels = np.array([self.classes.index(label) for _, label, _ in found], dtype=np.int64)
        self._positions = _split([split for split, _, _ in found], self._labels, given)
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


def _images(top: Path) -> list[tuple[str, Path]]:
    """(class, path) of every image below a folder; images beside the class folders count only where there are none."""
    classes = sorted(p for p in top.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = [(c.name, path) for c in classes for path in sorted(c.rglob("*")) if _is_image(path)]
    return found or [(UNLABELLED, path) for path in sorted(top.iterdir()) if _is_image(path)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _decode.SUFFIXES and not path.name.startswith(".") and path.is_file()


def _split(splits: list[str], labels: NDArray[np.int64], given: list[str]) -> dict[str, NDArray[np.int64]]:
    """Positions of each split: as given, the missing ones carved from what train holds."""
    own = {split: np.flatnonzero(np.array(splits) == split) for split in given if "train" in given}
    rest = own.pop("train", np.arange(len(labels)))
    lacking = [split for split in SPLITS if split not in own]
    total = sum(SHARES[split] for split in lacking)
    parts = carve(labels[rest], [SHARES[split] / total for split in lacking], salt="folder")
    return {**own, **{split: rest[part] for split, part in zip(lacking, parts, strict=True)}}


def build(argument: str) -> Folder:
    """`folder:DIR`."""
    root = Path(argument)
    if not argument or not root.is_dir():
        what = "does not exist" if not root.exists() else "is not a folder"
        raise BadData(f"folder:{argument}: {argument or '(empty)'} {what}. Give folder:DIR with one folder a class.")
    return Folder(root)

"""A folder of images: one folder a class, with or without `train`, `val` and `test` above; or no classes at all.

DIR/train/<class>/*.jpg   DIR/val/<class>/*   DIR/test/<class>/*     splits that are missing are carved from train
DIR/<class>/*.png                                                    60 % train, 15 % val, 25 % test by `carve`
DIR/*.png                                                            one class; for pre-training and for samples

`folder:DIR?all` is every image below DIR however its folders are called, in one class and all in train.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twofold.datasets import _decode
from twofold.datasets._files import UNLABELLED, Files, OnDisk, images_below, in_folders
from twofold.datasets.base import SPLITS
from twofold.errors import BadData

ALL = "all"


def build(argument: str) -> Files:
    """`folder:DIR`: every image file below a folder, in the order of their paths."""
    place, mark, word = argument.rpartition("?")
    whole = bool(mark) and word == ALL
    root = Path(place if whole else argument)
    if not argument or not root.is_dir():
        what = "does not exist" if not root.exists() else "is not a folder"
        raise BadData(f"folder:{argument}: {argument or '(empty)'} {what}. Give folder:DIR with one folder a class.")
    if whole:
        return _whole(root)
    given = [split for split in SPLITS if (root / split).is_dir()]
    tops = {split: f"{split}/" for split in given} if "train" in given else {"train": ""}
    found = [(label, top + name, split) for split, top in tops.items() for label, name in in_folders(root / top)]
    _check(root, found)
    labels, names, splits = zip(*found, strict=True)
    return Files(f"folder:{root}", OnDisk(root, names), labels, splits, own=tuple(tops), salt="folder")


def _whole(root: Path) -> Files:
    """Every image below a folder, in one class and one split."""
    names = images_below(root)
    _check(root, names)
    labels, splits = [UNLABELLED] * len(names), ["train"] * len(names)
    return Files(f"folder:{root}?{ALL}", OnDisk(root, names), labels, splits, own=SPLITS, salt="folder")


def _check(root: Path, found: Sequence[object]) -> None:
    if not found:
        raise BadData(f"folder:{root} holds no images ({', '.join(_decode.SUFFIXES)}). Give a folder with images.")

"""The two sides of a comparison: images, which a network still has to read, or features that are in a store.

DIR                      a folder: every image below it; of a run of `sample`, those in images/
DATA, DATA@SPLIT         a data set: all its images, or those of one split
STORE, STORE@SPLIT       what `extract` wrote
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold import store, tables
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset
from twofold.errors import BadData, BadRun, BadSetting, BadStore, unknown
from twofold.records import Cell
from twofold.store import Store

HELP = "a folder of images, DATA, DATA@SPLIT, STORE or STORE@SPLIT"
ALL = "all"
# Two sides can be compared only where these parts of a store's key are the same.
ALIKE = ("backbone", "preprocessing", "precision", "draws", "label")


@dataclass(frozen=True, eq=False)
class Images:
    """Images of a data set.

    Attributes:
        name: as given.
        dataset: where they are.
        splits: those that are taken.
        part: the split that was asked for, or `all`.
    """

    name: str
    dataset: Dataset
    splits: tuple[str, ...]
    part: str

    @property
    def count(self) -> int:
        """How many images."""
        return sum(len(self.dataset.build(split)) for split in self.splits)

    @property
    def fingerprint(self) -> str:
        """Of the images."""
        return self.dataset.fingerprint


@dataclass(frozen=True, eq=False)
class Stored:
    """Features in a store; attributes as those of `Images`."""

    name: str
    store: Store
    splits: tuple[str, ...]
    part: str

    @property
    def count(self) -> int:
        """How many images."""
        return sum(len(self.store.index(split)) for split in self.splits)

    @property
    def fingerprint(self) -> str:
        """Of the images and of how they were read."""
        key = self.store.key
        return f"{key['data']} {key['backbone']}"

    @property
    def cells(self) -> list[Cell]:
        """Those that are whole in all splits."""
        found = [set(self.store.cells(split)) for split in self.splits]
        return [cell for cell in self.store.cells(self.splits[0]) if all(cell in one for one in found)]

    def block_name(self, cell: Cell) -> str:
        """What the network calls a cell's block."""
        return str(self.store.about_cell(self.splits[0], cell)["name"])

    def table(self, cell: Cell, memory: int) -> Any:
        """The rows of all splits of a cell, one below the other: [N, D], in memory where they fit."""
        found = self.store.tables(self.splits, cell, memory)
        return tables.below([found[split].x for split in self.splits])


Side = Images | Stored


def parse(given: str, on_error: str) -> Side:
    """What stands behind one of the two names.

    Raises:
        UnknownName, BadSetting, BadData, BadRun, BadStore: nothing that can be compared.
    """
    if not given:
        raise BadSetting(f"'' names no images. Give {HELP}.")
    name, split = _apart(given)
    if split:
        datasets.check_split(name, split)
    if "://" in name or Path(name, "zarr.json").is_file():
        return _stored(given, store.load(name), split)
    data = f"folder:{_images_of(Path(name))}?all" if Path(name).is_dir() else name
    if "/" in data.partition(":")[0]:
        what = "is a file" if Path(data).exists() else "does not exist"
        raise BadData(f"{data} {what}. Give {HELP}.")
    return _images(given, datasets.load(data, on_error=on_error), split)


def _apart(given: str) -> tuple[str, str]:
    """NAME and SPLIT; an @ in a path is none between them."""
    name, _, split = given.rpartition("@")
    return (name, split) if name and "/" not in split and not Path(given).exists() else (given, "")


def _images_of(folder: Path) -> Path:
    """The folder of a run's images; any other folder is one of images itself."""
    if not (folder / "config.toml").exists():
        return folder
    if not (folder / "images").is_dir():
        raise BadRun(f"{folder} is a run without images. Give a run of `twofold sample`, or another folder of images.")
    return folder / "images"


def _images(given: str, dataset: Dataset, split: str) -> Images:
    found = tuple(s for s in ((split,) if split else datasets.SPLITS) if len(dataset.build(s)))
    if not found:
        advice = f"Give another split, or leave @{split} out for all." if split else "Give another."
        raise BadData(f"{given} holds no images. {advice}")
    dataset.tell_skipped()
    return Images(given, dataset, found, split or ALL)


def _stored(given: str, opened: Store, split: str) -> Stored:
    there = opened.splits()
    if split and split not in there:
        raise unknown(f"split in the store {opened.place}", split, there)
    if not there:
        raise BadStore(f"{opened.place} holds no features yet. Run `twofold extract` into it.")
    return Stored(given, opened, (split,) if split else tuple(s for s in datasets.SPLITS if s in there), split or ALL)


def check_alike(sides: Sequence[Side], keys: Sequence[Mapping[str, Any]]) -> None:
    """Raise `BadStore` where the features of two sides are not of the same network, read in the same way.

    Args:
        sides: the two.
        keys: of their stores, those there are and those that will be.
    """
    first, second = keys
    differs = [name for name in ALIKE if first.get(name) != second.get(name)]
    if differs:
        told = "; ".join(f"{name} is {first.get(name)} there, {second.get(name)} here" for name in differs)
        raise BadStore(
            f"The features of {' and '.join(side.name for side in sides)} are not read in the same way: {told}. "
            "Extract one of them again, or give the settings of the other."
        )


def the_cell(sides: Sequence[Stored], block: str | None, t: float | None, pool: int | None) -> Cell:
    """The one cell that all stores hold and that was asked for.

    Raises:
        BadSetting: none fits, or several do.
    """
    first, *others = sides
    shared = [cell for cell in first.cells if cell.pool and all(cell in other.cells for other in others)]
    fitting = [
        cell for cell in shared
        if (block in (None, str(cell.tap.block), first.block_name(cell)))
        and (t in (None, cell.tap.t)) and pool in (None, cell.pool)
    ]  # fmt: skip
    if len(fitting) == 1:
        return fitting[0]
    what = "hold several columns that fit" if fitting else "hold no pooled column that fits"
    listed = ", ".join(map(str, shared)) or "none"
    raise BadSetting(
        f"{' and '.join(side.name for side in sides)} {what}. Give --block, --t and --pool of one of these: {listed}."
    )

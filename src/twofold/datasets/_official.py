"""Data sets that their authors publish as archives: where one must lie, what it must hold, and how its lists are read.

The images and classes found are counted against the published numbers, so that an archive that was unpacked in part
is one clear line and not a score on other data. `?partial` behind a DATA string allows a part; since it is part of
the string, stores and scores say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.datasets._files import Files, OnDisk
from twofold.errors import BadData, unknown

PARTIAL = "partial"


@dataclass(frozen=True)
class Item:
    """One image of a list: its file, the name of its class, and `train`, `val` or `test`."""

    path: Path
    label: str
    split: str


@dataclass(frozen=True)
class Archive:
    """What its authors say of a data set.

    Attributes:
        name: the member's name; what val is carved by.
        folder: what the archive unpacks to. DIR is that folder or its parent.
        pieces: what is read, below the folder; a folder ends with a slash. A piece may also lie at the folder's top.
        page: where the archive is published.
        classes: how many there are.
        images: how many there are in each of the data set's own splits.
        words: what may stand behind `DIR?`, besides `partial`.
        otherwise: another tree that is read as well, in words.
    """

    name: str
    folder: str
    pieces: tuple[str, ...]
    page: str
    classes: int
    images: Mapping[str, int]
    words: tuple[str, ...] = ()
    otherwise: str = ""

    def open(self, argument: str) -> Place:
        """Find the pieces; `argument` is what stands behind the colon of a DATA string.

        Raises:
            BadData: no such folder, or a piece is missing.
            UnknownName: something else than `partial` or `words` stands behind the question mark.
        """
        named, asked = argument.partition("?")[0], words(argument)
        for word in asked:
            if word not in (PARTIAL, *self.words):
                allowed = (PARTIAL, *self.words)
                raise unknown(f"setting of {self.name}", word, allowed, f"Write {self.name}:DIR?{PARTIAL}.")
        folder = Path(named)
        if not named or not folder.is_dir():
            what = f"{named} is not a folder" if named else "names no folder"
            raise BadData(f"{self.name}:{argument}: {what}. {self.tree()}")
        root, lacking = self.home(folder)
        if lacking:
            raise BadData(f"{self.name}:{argument}: {root} lacks {', '.join(lacking)}. {self.tree()}")
        return Place(self, f"{self.name}:{argument}", root, PARTIAL in asked)

    def home(self, folder: Path) -> tuple[Path, list[str]]:
        """Of DIR and DIR/folder, the one that holds more of the pieces, and those that it lacks."""
        homes = [home for home in (folder, folder / self.folder) if home.is_dir()]
        lacking = {home: [piece for piece in self.pieces if not _find(home, piece)] for home in homes}
        best = min(homes, key=lambda home: len(lacking[home]))
        return best, lacking[best]

    def tree(self) -> str:
        """What DIR must look like and where it comes from, in two sentences."""
        also = f" (or {self.otherwise})" if self.otherwise else ""
        return f"DIR, or DIR/{self.folder}, must hold {', '.join(self.pieces)}{also}. Published at {self.page}."


@dataclass(frozen=True)
class Place:
    """An archive that lies unpacked somewhere.

    Attributes:
        archive: which one.
        data: the DATA string.
        root: its folder.
        partial: whether a part of it is enough.
    """

    archive: Archive
    data: str
    root: Path
    partial: bool

    def path(self, piece: str) -> Path:
        """Where one of the archive's pieces lies."""
        return _find(self.root, piece) or self.root / piece

    def files(self, items: Sequence[Item], classes: Sequence[str]) -> Files:
        """The data set, once all of it is there; of `classes`, in their order, those that have images.

        Raises:
            BadData: images that lists name are not there, counts differ from the published ones, an image stands
                twice in the lists, or a class has nothing to learn from.
        """
        self._check_once(items)
        items = self._present(items)
        if not self.partial:
            self._check_counts(items, classes)
        self._check_splits(items)
        held = {item.label for item in items}
        ordered = [name for name in classes if name in held]
        source = OnDisk(self.root, [item.path.relative_to(self.root).as_posix() for item in items])
        labels, splits = [item.label for item in items], [item.split for item in items]
        own = tuple(self.archive.images)
        return Files(self.data, source, labels, splits, own=own, salt=self.archive.name, classes=ordered)

    def _check_once(self, items: Sequence[Item]) -> None:
        twice = [path for path, count in Counter(item.path for item in items).items() if count > 1]
        if twice:
            raise BadData(
                f"{self.data}: its lists name {some(twice)} more than once, and an image belongs to one split. "
                f"Unpack the lists again ({self.archive.page})."
            )

    def _present(self, items: Sequence[Item]) -> list[Item]:
        there = [item.path.is_relative_to(self.root) and item.path.is_file() for item in items]
        if not all(there) and not self.partial:
            raise BadData(
                f"{self.data}: {there.count(False):,} of {len(items):,} images that its lists name are not there, "
                f"the first is {items[there.index(False)].path}. {self._mend()}"
            )
        return [item for item, held in zip(items, there, strict=True) if held]

    def _check_counts(self, items: Sequence[Item], classes: Sequence[str]) -> None:
        found, labels = Counter(item.split for item in items), {item.label for item in items}
        counts = {f"{split} images": (found[split], wanted) for split, wanted in self.archive.images.items()}
        counts["classes"] = (len(labels), self.archive.classes)
        wrong = [f"{held:,} {what} instead of {wanted:,}" for what, (held, wanted) in counts.items() if held != wanted]
        if wrong:
            absent = [name for name in classes if name not in labels] if len(classes) == self.archive.classes else []
            first = f" (no image of {some(absent)})" if absent else ""
            raise BadData(f"{self.data}: {self.root} has {', '.join(wrong)}{first}. {self._mend()}")

    def _check_splits(self, items: Sequence[Item]) -> None:
        for split in self.archive.images:
            if not any(item.split == split for item in items):
                raise BadData(f"{self.data}: {self.root} holds no {split} image that its lists name. {self._mend()}")
        learned = {item.label for item in items if item.split == "train"}
        alone = sorted({item.label for item in items} - learned)
        if alone:
            raise BadData(
                f"{self.data}: train has no image of {some(alone)}, other splits have. "
                "Add training images of them, or take their other images out."
            )

    def _mend(self) -> str:
        again = f"Unpack the archive again ({self.archive.page})"
        return f"{again}." if self.partial else f"{again}, or write {self.archive.name}:DIR?{PARTIAL} for a part of it."


def some(things: Sequence[object]) -> str:
    """The first three of many, and how many more there are."""
    more = f" and {len(things) - 3:,} more" if len(things) > 3 else ""
    return ", ".join(str(thing) for thing in things[:3]) + more


def words(argument: str) -> list[str]:
    """What stands behind the question mark of a DATA string: words with `&` between them."""
    return [word for word in argument.partition("?")[2].split("&") if word]


def _find(home: Path, piece: str) -> Path | None:
    for path in (home / piece, home / Path(piece).name):
        if path.is_dir() if piece.endswith("/") else path.is_file():
            return path
    return None


def from_lists(place: Place) -> Files:
    """The four lists of the Caltech and Cornell birds, each with an id in front of every line.

    images.txt (path below images/), image_class_labels.txt (class id), train_test_split.txt (1 is train) and
    classes.txt (name). Classes are those with images; NABirds also lists the groups above them.
    """
    lists = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    paths, labels, training, named = (place.path(name) for name in lists)
    images = place.path("images/")
    names, label, split = distinct(pairs(named)), pairs(labels), pairs(training)
    items = [
        Item(
            images / name,
            entry(names, entry(label, key, labels), named),
            entry({"1": "train", "0": "test"}, entry(split, key, training), training),
        )
        for key, name in pairs(paths).items()
    ]
    return place.files(items, list(names.values()))


def pairs(path: Path) -> dict[str, str]:
    """Lines of a word, a space and the rest, as a table from the word to the rest, in the file's order."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BadData(f"{path} is not a text file. Unpack it again from its archive.") from error
    table: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        key, _, rest = line.strip().partition(" ")
        if key and (not rest or key in table):
            what = "stands there twice" if rest else "has nothing behind it"
            raise BadData(
                f"{path}, line {number}: {key[:60]!r} {what}. Each line has an id of its own, a space and a value; "
                "unpack the file again from its archive."
            )
        if key:
            table[key] = rest.strip()
    return table


def entry(table: Mapping[str, str], key: str, path: Path) -> str:
    """What a table that was read from `path` says of a key that another list names."""
    if key not in table:
        raise BadData(
            f"{path} does not fit the lists beside it: {key!r} is none of its values ({some(list(table))}). "
            "Unpack all lists again from one archive."
        )
    return table[key]


def distinct(names: Mapping[str, str]) -> dict[str, str]:
    """Class names by class id; those that several ids share get their id behind them."""
    count = Counter(names.values())
    return {key: name if count[name] == 1 else f"{name} ({key})" for key, name in names.items()}


def mat(path: Path, *names: str) -> list[NDArray[Any]]:
    """Variables of a MATLAB file, without axes of length one, each with one axis at least.

    Raises:
        BadData: not a MATLAB file (version 7.3 is HDF5 and not read), or without these variables.
    """
    from scipy.io import loadmat

    try:
        held = loadmat(path, squeeze_me=True)
    except Exception as error:  # scipy raises whatever its parser stumbled over
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise BadData(
            f"{path} cannot be read as a MATLAB file ({reason}). Unpack it again from its archive."
        ) from error
    lacking = [name for name in names if name not in held]
    if lacking:
        own = ", ".join(sorted(name for name in held if not name.startswith("__"))) or "nothing"
        raise BadData(f"{path} holds {own} and not {', '.join(lacking)}. Put the file of the archive in its place.")
    return [np.atleast_1d(held[name]) for name in names]


def numbers(values: NDArray[Any], path: Path, *, top: int) -> list[int]:
    """Whole numbers 1..top of a MATLAB file; anything else is an error that names the file."""
    try:
        found = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        found = np.zeros(1)
    if not ((found == np.rint(found)) & (found >= 1) & (found <= top)).all():
        raise BadData(f"{path} holds numbers that are not 1 to {top:,}. Put the file of the archive in its place.")
    return [int(value) for value in found]

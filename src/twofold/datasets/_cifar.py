"""The files of CIFAR-10 and CIFAR-100: Python's batches or the binary ones, as their archives unpack.

Names and checksums of the Python batches are those that torchvision keeps. Its reader is not used: it unpickles
whatever has the right checksum, with the full unpickler, and knows neither the binary files nor a part of the data.
Here a batch is read by an unpickler that knows arrays and plain values only.
"""

from __future__ import annotations

import codecs
import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twofold.datasets._arrays import Arrays
from twofold.datasets.base import complete
from twofold.errors import BadData, unknown

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
ROOT = "data"
AGAIN = f"Unpack the archive again ({PAGE}), or write ROOT?partial for a part of it."
SIDE = 32
PIXELS = 3 * SIDE * SIDE
# What a pickled batch is made of, by its names in files of Python 2 and of Python 3.
REBUILD = np.zeros(0).__reduce__()[0]
KNOWN = {
    "numpy.core.multiarray._reconstruct": REBUILD,
    "numpy._core.multiarray._reconstruct": REBUILD,
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "_codecs.encode": codecs.encode,
}


class Batch(NamedTuple):
    """Images uint8 [N, 3, 32, 32] and labels int64 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """One of the two ways in which the data set is published.

    Attributes:
        folder: what the archive unpacks to.
        train, test: its files.
        names: the file of class names.
        batch: reads one file.
        classes: reads the class names.
        checksums: MD5 by file, where they are known.
    """

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    batch: Callable[[Path], Batch]
    classes: Callable[[Path], list[str]]
    checksums: dict[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """All that is read."""
        return (*self.train, *self.test, self.names)


def python(published: Any, label: str) -> Layout:
    """The layout that a class of torchvision describes; `label` is the key of a batch's labels."""
    meta = published.meta
    checksums = dict((*published.train_list, *published.test_list))
    return Layout(
        published.base_folder,
        tuple(name for name, _ in published.train_list),
        tuple(name for name, _ in published.test_list),
        meta["filename"],
        lambda path: _batch(path, label),
        lambda path: [str(name) for name in _entry(_unpickled(path), meta["key"], path)],
        {**checksums, meta["filename"]: meta["md5"]},
    )


def binary(folder: str, train: Sequence[str], test: str, names: str, *, before: int) -> Layout:
    """Records of `before` label bytes, the last of which counts, and 3,072 bytes of pixels."""

    def batch(path: Path) -> Batch:
        content = np.fromfile(path, np.uint8)
        if not len(content) or len(content) % (before + PIXELS):
            raise BadData(f"{path} is not whole records of {before + PIXELS:,} bytes. Unpack it again ({PAGE}).")
        records = content.reshape(-1, before + PIXELS)
        return Batch(records[:, before:].reshape(-1, 3, SIDE, SIDE), records[:, before - 1].astype(np.int64))

    def classes(path: Path) -> list[str]:
        return path.read_text(encoding="utf-8", errors="replace").split()

    return Layout(folder, tuple(train), (test,), names, batch, classes, {})


def build(name: str, argument: str, layouts: Sequence[Layout], count: dict[str, int], classes: int) -> Arrays:
    """`NAME[:ROOT][?partial]`: train first, then test, in the order of the files; val is carved from train.

    Raises:
        BadData: no such files, other files than the published ones, or a file that is damaged.
    """
    place, _, word = argument.partition("?")
    if word not in ("", "partial"):
        raise unknown(f"setting of {name}", word, ("partial",), f"Write {name}:ROOT?partial.")
    data = f"{name}:{argument}" if place else f"{name}{argument}"
    layout, folder = _find(data, Path(place or ROOT), layouts)
    if not word:
        _check_published(data, layout, folder)
    train = _joined([layout.batch(folder / file) for file in layout.train if (folder / file).is_file()])
    test = _joined([layout.batch(folder / file) for file in layout.test])
    names = layout.classes(folder / layout.names)
    labels = np.concatenate([train.labels, test.labels])
    found = {"train": len(train.labels), "test": len(test.labels)}
    if not word and (found != count or len(names) != classes):
        raise BadData(f"{data}: {folder} has {found} images of {len(names)} classes, not {count} of {classes}. {AGAIN}")
    if labels.min() < 0 or labels.max() >= len(names):
        raise BadData(f"{data}: {folder} has labels that are not 0 to {len(names) - 1}. {AGAIN}")
    own = {"train": np.arange(found["train"]), "test": np.arange(found["train"], len(labels))}
    images = np.concatenate([train.images, test.images])
    return Arrays(data, images, labels, complete(own, labels, salt=name), names)


def _find(data: str, root: Path, layouts: Sequence[Layout]) -> tuple[Layout, Path]:
    """The first layout that lies in ROOT, or that ROOT is."""
    for layout in layouts:
        for folder in (root / layout.folder, root):
            if all((folder / file).is_file() for file in (layout.train[0], *layout.test, layout.names)):
                return layout, folder
    trees = " or ".join(f"{layout.folder}/ ({', '.join(layout.files)})" for layout in layouts)
    raise BadData(f"{data}: {root} holds no {trees}. Unpack one of the archives of {PAGE} there; none is downloaded.")


def _check_published(data: str, layout: Layout, folder: Path) -> None:
    for file in layout.files:
        if not (folder / file).is_file():
            raise BadData(f"{data}: {folder} lacks {file}. {AGAIN}")
        wanted = layout.checksums.get(file)
        if wanted and hashlib.md5((folder / file).read_bytes(), usedforsecurity=False).hexdigest() != wanted:
            raise BadData(f"{data}: {folder / file} is not the published file (its MD5 differs). {AGAIN}")


def _joined(batches: Sequence[Batch]) -> Batch:
    return Batch(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def _batch(path: Path, label: str) -> Batch:
    found = _unpickled(path)
    images, labels = np.asarray(_entry(found, "data", path)), np.asarray(_entry(found, label, path))
    if images.dtype != np.uint8 or images.shape != (len(labels), PIXELS) or labels.dtype.kind not in "iu":
        raise BadData(f"{path} holds no images of {PIXELS:,} bytes with a label each. {AGAIN}")
    return Batch(images.reshape(-1, 3, SIDE, SIDE), labels.astype(np.int64))


def _entry(found: Any, key: str, path: Path) -> Any:
    if not isinstance(found, dict) or key not in found:
        raise BadData(f"{path} holds no {key}. {AGAIN}")
    return found[key]


class _Arrays(pickle.Unpickler):
    """Knows arrays and plain values; whatever else a pickle asks for is refused, so nothing in it is ever executed."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and a batch needs no such thing")
        return KNOWN[f"{module}.{name}"]


def _unpickled(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _Arrays(file, encoding="latin1").load()
    except Exception as error:  # pickle raises whatever its machine stumbled over
        raise BadData(f"{path} is no batch of CIFAR ({error}). {AGAIN}") from error

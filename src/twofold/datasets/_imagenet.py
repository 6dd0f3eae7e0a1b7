"""ImageNet's files: train/<wnid>/, and val/ in folders or flat with the ground truth of the devkit.

ImageNet's own test has no public labels, so its val is test here, as in all papers, and a val is carved from train.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from twofold.datasets import _official
from twofold.datasets._files import Files, OnDisk, images_below
from twofold.errors import BadData, unknown

PAGE = "https://image-net.org/download-images.php"
DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
TREE = (
    f"""DIR must hold train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, or val/*.JPEG with {DEVKIT}/. Published at {PAGE}."""
)
VAL = 13  # images of a class, as many as a class has in the 1 % of labels of the papers
TEST = 50  # images of a class


class Image(NamedTuple):
    """One image: its class, its name below DIR, its split."""

    wnid: str
    name: str
    split: str


def build(kind: str, argument: str, *, only: Sequence[str] = (), train: int | None = None, classes: int) -> Files:
    """`KIND:DIR[?partial]`; train by class and name, then val by name whatever folders it lies in.

    Args:
        kind, argument: the parts of the DATA string.
        only: the classes to read; none: all there are.
        train: how many training images there are, where that is published.
        classes: how many classes there are.

    Raises:
        BadData: no such tree, or other classes or counts than ImageNet's.
    """
    place, _, word = argument.partition("?")
    if word not in ("", _official.PARTIAL):
        raise unknown(f"setting of {kind}", word, (_official.PARTIAL,), f"Write {kind}:DIR?{_official.PARTIAL}.")
    data, root = f"{kind}:{argument}", Path(place)
    lacking = [f"{top}/" for top in ("train", "val") if not place or not (root / top).is_dir()]
    if lacking:
        raise BadData(f"{data}: {place or '(empty)'} holds no {' and no '.join(lacking)}. {TREE}")
    there = only or sorted(path.name for path in (root / "train").iterdir() if re.fullmatch(r"n\d{8}", path.name))
    if not any((root / "train" / wnid).is_dir() for wnid in there):
        raise BadData(
            f"{data}: {root}/train holds no folder of its classes ({_official.some(there or ['n01440764'])}). {TREE}"
        )
    images = _train(root, there) + _test(data, root, there)
    _check(data, images, there, {} if word else {"train": train, "classes": classes})
    wnids, names, splits = zip(*images, strict=True)
    found, own = set(wnids), ("train", "val", "test")
    classes_held = [wnid for wnid in there if wnid in found]
    return Files(data, OnDisk(root, names), wnids, splits, own=own, salt="imagenet", classes=classes_held)


def _train(root: Path, wnids: Sequence[str]) -> list[Image]:
    """Training images; those of val are the 13 of each class whose names have the smallest SHA-256.

    The rule is one of names, so val of fifty classes is what val of all classes holds of them. Half of a class stays
    in train where it has fewer than 26 images, which is so in a part of ImageNet only.
    """
    found = []
    for wnid in wnids:
        names = images_below(root / "train" / wnid) if (root / "train" / wnid).is_dir() else []
        val = set(sorted(names, key=_place)[: min(VAL, len(names) // 2)])
        found += [Image(wnid, f"train/{wnid}/{name}", "val" if name in val else "train") for name in names]
    return found


def _place(name: str) -> str:
    return hashlib.sha256(f"imagenet:{name}".encode()).hexdigest()


def _test(data: str, root: Path, wnids: Sequence[str]) -> list[Image]:
    """ImageNet's val, in the order of its numbers."""
    inside = [wnid for wnid in wnids if (root / "val" / wnid).is_dir()]
    if inside:
        found = [
            Image(wnid, f"val/{wnid}/{name}", "test") for wnid in inside for name in images_below(root / "val" / wnid)
        ]
    else:
        truth, wanted = _truth(data, root), set(wnids)
        flat = images_below(root / "val", deep=False)
        found = [Image(truth(name), f"val/{name}", "test") for name in flat]
        found = [image for image in found if image.wnid in wanted]
    return sorted(found, key=lambda image: image.name.rpartition("/")[2])


def _truth(data: str, root: Path) -> Callable[[str], str]:
    """The class of a file of the flat val, by the number in its name."""
    meta, truth = (_devkit(data, root, piece) for piece in ("meta.mat", TRUTH))
    (synsets,) = _official.mat(meta, "synsets")
    if {"ILSVRC2012_ID", "WNID"} - set(synsets.dtype.names or ()):
        raise BadData(f"{meta} lists no classes. Unpack the devkit again ({PAGE}).")
    wnid = {int(number): str(name) for number, name in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
    lines = truth.read_text().split()

    def of(name: str) -> str:
        try:
            (number,) = re.findall(r"_val_0*([1-9]\d*)\.", name)
            return wnid[int(lines[int(number) - 1])]
        except (ValueError, KeyError, IndexError) as error:
            raise BadData(
                f"{data}: {truth} has no class of {name}. The names of val are ILSVRC2012_val_00000001.JPEG to "
                f"..._00050000.JPEG, and line k is the class of number k; unpack both again ({PAGE})."
            ) from error

    return of


def _devkit(data: str, root: Path, piece: str) -> Path:
    for folder in (root / DEVKIT / "data", root / "data", root):
        if (folder / piece).is_file():
            return folder / piece
    raise BadData(f"{data}: {root}/val has no folders of classes, and there is no {DEVKIT}/data/{piece}. {TREE}")


def _check(data: str, images: Sequence[Image], wnids: Sequence[str], published: dict[str, int | None]) -> None:
    """Each class has training images; without `?partial` all published images are there."""
    learned = {image.wnid for image in images if image.split == "train"}
    tested = Counter(image.wnid for image in images if image.split == "test")
    if not learned or not tested:
        raise BadData(f"{data} holds no images in {'val' if learned else 'train'}/. {TREE}")
    alone = sorted(set(tested) - learned)
    if alone:
        raise BadData(f"{data}: train has no image of {_official.some(alone)}, val has. Unpack train again ({PAGE}).")
    if not published:
        return
    train = sum(image.split != "test" for image in images)
    counts = {
        "classes": (len(learned), published["classes"]),
        "images in train": (train, published["train"] or train),
        "images in val": (tested.total(), TEST * (published["classes"] or 0)),
    }
    wrong = [f"{held:,} {what} instead of {wanted:,}" for what, (held, wanted) in counts.items() if held != wanted]
    if wrong:
        absent = [wnid for wnid in wnids if wnid not in learned]
        first = f" (none of {_official.some(absent)})" if absent else ""
        raise BadData(
            f"{data} has {', '.join(wrong)}{first}. Unpack the archives again ({PAGE}), or write DIR?partial."
        )

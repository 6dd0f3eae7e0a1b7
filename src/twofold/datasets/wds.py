"""Tars of webdataset: in each, files that share a name up to its first dot are one sample; .cls is its class.

wds:DIR/*.tar   wds:DIR/train-{000000..000146}.tar   the word train, val or test in a tar's name, or in its folder's,
                                                      says its split; tars without one are train
An image is read from its place in its tar: nothing is unpacked to disk, and no more of a tar is in memory than its
index. A class is a number or a name. Splits that are missing are carved from train.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, final

from twofold.datasets._files import UNLABELLED, Files, is_image
from twofold.errors import BadData

WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
LONGEST_CLASS = 1000  # bytes of a .cls file


class Sample(NamedTuple):
    """One image: its tar, its name in it, where its bytes begin and how many they are, and its class."""

    tar: Path
    name: str
    start: int
    size: int
    label: str | None


@final
@dataclass(frozen=True)
class InTars:
    """Image files inside of tars."""

    samples: Sequence[Sample]

    @cached_property
    def names(self) -> Sequence[str]:
        """Tar, below the folder that all tars share, and name in it."""
        top = os.path.commonpath([sample.tar.parent for sample in self.samples])
        return [f"{os.path.relpath(sample.tar, top)}/{sample.name}" for sample in self.samples]

    def sizes(self) -> Sequence[int]:
        """Bytes of each image."""
        return [sample.size for sample in self.samples]

    def open(self, position: int) -> BytesIO:
        """The bytes of one image."""
        sample = self.samples[position]
        with sample.tar.open("rb") as file:
            file.seek(sample.start)
            return BytesIO(file.read(sample.size))

    def where(self, position: int) -> str:
        """Tar and name in it, for people."""
        return f"{self.samples[position].tar}/{self.samples[position].name}"


def build(argument: str) -> Files:
    """`wds:GLOB`; images in the order of the tars' paths, and as they lie in each."""
    data = f"wds:{argument}"
    tars = sorted({Path(path) for pattern in unfolded(argument) for path in glob(pattern, recursive=True)})  # noqa: PTH207 - absolute or not
    if not tars:
        raise BadData(f"{data}: no such file. Give the tars by a pattern, as in wds:DIR/train-*.tar.")
    samples = [sample for tar in tars for sample in _samples(tar)]
    if not samples:
        raise BadData(f"{data}: its {len(tars)} tars hold no images. Give the tars of a webdataset.")
    splits = [split_of(sample.tar) for sample in samples]
    if "train" not in splits:
        raise BadData(f"{data} is of {splits[0]} only. Give the tars of train as well.")
    own = [split for split in ("train", "val", "test") if split in splits]
    labels, classes = _labels(samples)
    return Files(data, InTars(samples), labels, splits, own=own, salt="wds", classes=classes)


def unfolded(pattern: str) -> list[str]:
    """The patterns that one with braces stands for: `{000..012}` counts, `{a,b}` lists."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    words = found[1].split(",")
    if ends:
        words = [f"{number:0{len(ends[1])}d}" for number in range(int(ends[1]), int(ends[2]) + 1)]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [whole for word in words for whole in unfolded(f"{before}{word}{after}")]


def split_of(tar: Path) -> str:
    """The split that a tar's name says, or its folder's name."""
    for name in (tar.name, tar.parent.name):
        for word in re.split(r"[^a-z]+", name.lower()):
            if word in WORDS:
                return WORDS[word]
    return "train"


def _samples(tar: Path) -> Iterator[Sample]:
    """The images of a tar, with their classes."""
    try:
        with tarfile.open(tar, "r:") as archive:
            members = (member for member in archive if member.isfile() and not Path(member.name).name.startswith("."))
            for _, group in groupby(members, key=lambda member: _key(member.name)):
                together = list(group)
                label = next((_text(archive, m) for m in together if m.name.lower().endswith(".cls")), None)
                yield from (Sample(tar, m.name, m.offset_data, m.size, label) for m in together if is_image(m.name))
            _check_end(archive, tar)
    except (tarfile.TarError, EOFError) as error:
        raise BadData(
            f"{tar} cannot be read as a tar ({error or 'it is cut off'}). A compressed one must be uncompressed first, "
            "since images are read from their places in it; copy a damaged one again."
        ) from error


def _check_end(archive: tarfile.TarFile, tar: Path) -> None:
    """A tar that is cut off inside of its last file reads as whole otherwise."""
    members = archive.getmembers()
    if members and members[-1].offset_data + members[-1].size > tar.stat().st_size:
        raise EOFError(f"it is cut off in {members[-1].name}")


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    return "" if file is None else file.read(LONGEST_CLASS).decode("utf-8", "replace").strip()


def _labels(samples: Sequence[Sample]) -> tuple[list[str], list[str]]:
    """The class of each image, and all classes in order: of numbers by size."""
    without = [sample for sample in samples if sample.label in (None, "")]
    if without and len(without) < len(samples):
        raise BadData(f"{without[0].tar}/{without[0].name} has no .cls beside it, others have. Add its class.")
    labels = [sample.label or UNLABELLED for sample in samples]
    classes = set(labels)
    return labels, sorted(classes, key=int) if all(map(str.isdecimal, classes)) else sorted(classes)

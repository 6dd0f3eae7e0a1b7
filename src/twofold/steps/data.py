"""Look at a data set before work on it: `data check DATA` decodes every image once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twofold import results
from twofold.datasets import base as datasets
from twofold.datasets.base import SPLITS, Dataset
from twofold.errors import BadData, BadSetting
from twofold.plots import pictures
from twofold.records import Outcome
from twofold.settings import Settings, setting

if TYPE_CHECKING:
    from torch import Tensor

    from twofold.datasets._survey import Seen

SHOWN = 12  # classes in the table and in the picture
SAMPLES = {"train": 4, "val": 2, "test": 2}  # pictures of a class
TILE = 96  # pixels


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold data`."""

    action: str = setting(help="what to do: check", positional=True, choices=("check",))
    data: str = setting(help="data set to look at", positional=True)
    out: Path | None = setting(None, help="PNG of samples of each class; none: no picture")
    verify: str | None = setting(None, help="contents that an earlier check printed; other contents are an error")


@dataclass(frozen=True)
class Look:
    """What is kept of an image: a hash of its pixels, width and height."""

    digest: bytes
    width: int
    height: int


def run(config: Config) -> Outcome:
    """Count, decode, compare; what would stop work is the outcome's problem."""
    from twofold.datasets._survey import survey

    if config.out is not None and config.out.suffix != ".png":
        raise BadSetting(f"data --out {config.out} must end in .png; it is a picture of samples.")
    dataset = datasets.load(config.data)
    seen = list(survey(dataset, SPLITS, _look))
    facts = {
        "data": dataset.name, "fingerprint": dataset.fingerprint, "contents": _contents(seen),
        "images": {split: len(dataset.build(split)) for split in SPLITS}, "classes": _counts(dataset),
        "sides": _sides(seen), "unreadable": [one.problem for one in seen if one.problem],
        "duplicates": _duplicates(dataset, seen),
    }  # fmt: skip
    if config.out is not None:
        _draw(dataset, seen, config.out)
        facts["picture"] = str(config.out)
    return Outcome(facts, _told(facts), _problem(config, dataset, facts))


def _look(image: Tensor) -> Look:
    shape = "x".join(map(str, image.shape)).encode()
    pixels = np.ascontiguousarray(image.numpy())
    return Look(hashlib.blake2b(pixels.data, digest_size=16, key=shape).digest(), image.shape[2], image.shape[1])


def _contents(seen: Sequence[Seen[Look]]) -> str:
    """A hash of all pixels, in the order of the images' numbers."""
    told = hashlib.sha256()
    for one in sorted(seen, key=lambda one: one.index):
        told.update(one.value.digest if one.value else b"unreadable")
    return told.hexdigest()[:16]


def _counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Images of each class in each split."""
    size = len(dataset.classes)
    count = {split: np.bincount(dataset.build(split).labels, minlength=size).tolist() for split in SPLITS}
    return {name: {split: count[split][k] for split in SPLITS} for k, name in enumerate(dataset.classes)}


def _sides(seen: Sequence[Seen[Look]]) -> dict[str, list[int]]:
    """Smallest, median and largest of the images' shorter and longer sides in pixels."""
    sides = np.array([sorted((one.value.width, one.value.height)) for one in seen if one.value]).reshape(-1, 2)
    if not len(sides):
        return {}
    found = np.quantile(sides, (0, 0.5, 1), axis=0, method="nearest")
    return {"shorter": found[:, 0].tolist(), "longer": found[:, 1].tolist()}


def _duplicates(dataset: Dataset, seen: Sequence[Seen[Look]]) -> list[dict[str, list[str]]]:
    """Images of the same pixels that stand in more than one split: their names by split."""
    groups: dict[bytes, list[Seen[Look]]] = {}
    for one in seen:
        if one.value:
            groups.setdefault(one.value.digest, []).append(one)
    across = [group for group in groups.values() if len({one.split for one in group}) > 1]
    return [
        {split: [dataset.image_name(one.index) for one in group if one.split == split] for split in SPLITS}
        for group in across
    ]


def _problem(config: Config, dataset: Dataset, facts: dict[str, Any]) -> str:
    """The first thing that would stop work, or nothing."""
    unreadable = facts["unreadable"]
    if unreadable:
        rest = f" So do {len(unreadable) - 1:,} others." if len(unreadable) > 1 else ""
        return f"{unreadable[0]}{rest} `--on-error skip` leaves out what does not decode."
    if config.verify is not None and config.verify != facts["contents"]:
        return f"{config.data} has the contents {facts['contents']}, not {config.verify}. Its images were changed."
    empty = [split for split in SPLITS if not facts["images"][split]]
    if empty:
        return f"{config.data} has no image in {' and '.join(empty)}: it is too small to be split. Add images."
    if len(dataset.classes) > 1:
        try:
            datasets.check_classes(dataset)
        except BadData as error:
            return str(error)
    return ""


def _told(facts: dict[str, Any]) -> str:
    """The facts as text."""
    lines = [f"{facts['data']}: fingerprint {facts['fingerprint']}, contents {facts['contents']}.", ""]
    lines += [_table(facts), "", _about_sides(facts["sides"])]
    if len(facts["classes"]) == 1:
        lines.append("One class only: enough for pretrain, nothing for a head to learn.")
    lines += [f"Does not decode: {problem}" for problem in facts["unreadable"]]
    lines += _about_duplicates(facts["duplicates"])
    return "\n".join(lines)


def _table(facts: dict[str, Any]) -> str:
    rows = [("class", *SPLITS), ("all", *(f"{facts['images'][split]:,}" for split in SPLITS))]
    classes = facts["classes"]
    rows += [(name, *(f"{count[s]:,}" for s in SPLITS)) for name, count in list(classes.items())[:SHOWN]]
    if len(classes) > SHOWN:
        rest = list(classes.values())[SHOWN:]
        spread = [f"{min(c[s] for c in rest):,} to {max(c[s] for c in rest):,}" for s in SPLITS]
        rows.append((f"{len(rest):,} more, each", *spread))
    return results.table(rows)


def _about_sides(sides: dict[str, list[int]]) -> str:
    if not sides:
        return "No image decodes."
    told = ", ".join(f"{name} {low:,} to {high:,} (median {mid:,})" for name, (low, mid, high) in sides.items())
    return f"Sides in pixels: {told}."


def _about_duplicates(found: Sequence[dict[str, list[str]]]) -> list[str]:
    """One line for each pair of splits that share images."""
    pairs: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    for group in found:
        there = [split for split in SPLITS if group[split]]
        for pair in [(a, b) for a in there for b in there if SPLITS.index(a) < SPLITS.index(b)]:
            pairs[pair] += 1
            first.setdefault(pair, " = ".join(group[split][0] for split in pair))
    return [
        f"{count:,} {'image stands' if count == 1 else 'images stand'} in both {a} and {b}, pixel by pixel; "
        f"the first: {first[a, b]}."
        for (a, b), count in pairs.items()
    ]


def _draw(dataset: Dataset, seen: Sequence[Seen[Look]], out: Path) -> None:
    """The first readable images of the first classes, from each split."""
    readable = {(one.split, one.row) for one in seen if one.value}
    classes = dataset.classes[:SHOWN]
    columns: list[tuple[str, list[pictures.Tile]]] = []
    for split, count in SAMPLES.items():
        rows = dataset.build(split)
        of = [
            [int(r) for r in np.flatnonzero(rows.labels == k) if (split, int(r)) in readable]
            for k in range(len(classes))
        ]
        for k in range(min(count, max(map(len, of)))):
            tiles = [_tile(rows.read([own[k]])[0]) if k < len(own) else None for own in of]
            columns.append(("" if k else split, tiles))
    more = f", {len(classes)} of {len(dataset.classes):,} classes" if len(dataset.classes) > SHOWN else ""
    pictures.samples([name[:24] for name in classes], columns, f"{dataset.name}{more}", out)


def _tile(image: Tensor) -> pictures.Tile:
    """The middle square of an image, at most TILE pixels wide."""
    from PIL import Image, ImageOps

    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    side = min(*picture.size, TILE)
    return np.asarray(ImageOps.fit(picture, (side, side)))

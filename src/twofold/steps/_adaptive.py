"""A good tap without reading them all: golden section over noise steps, successive halving over blocks and pools.

Curves of accuracy over the logarithm of sigma rise to one top and fall (P1's figure of accuracy over t), and a forward
pass at one step serves all blocks and pools. So what costs is steps, and they are what is searched for: on a part of
the rows, few steps are looked at; the best of these are read whole, and judged as the grid judges.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from twofold import noise
from twofold.backbones.base import Backbone
from twofold.datasets.base import Dataset, Rows
from twofold.errors import BadSetting
from twofold.records import Cell, Tap
from twofold.steps import _fill, _judging
from twofold.steps._judging import Judge, Record
from twofold.store import Store

BUDGET = 0.25  # of the grid's forward passes
PART = 0.25  # of the rows, on which steps are looked at
LOOKS = 5
LEAST_STEPS = 8  # below, the budget holds no step that is read whole
GOLDEN = (3 - math.sqrt(5)) / 2
KEPT = 0.25  # of the places (block and pool) at the end of the halving
BEST = 3  # places whose mean stands for a step

Place = tuple[int, int]


@dataclass(frozen=True)
class Found:
    """What a search has to show: records of whole steps, of looks, and forward passes (images x steps)."""

    judged: list[Record]
    looked: list[Record]
    passes: int
    grid_passes: int


def check(cells: Sequence[Cell]) -> None:
    """Raise `BadSetting` where there are too few steps to leave most of them out."""
    steps = {cell.tap.t for cell in cells}
    if len(steps) < LEAST_STEPS:
        raise BadSetting(
            f"--search adaptive leaves most noise steps out, and there {'is' if len(steps) == 1 else 'are'} "
            f"{len(steps)}. Give {LEAST_STEPS} or more with --t or --sigma, or --search grid."
        )


def search(
    judge: Judge, folder: Path, open_store: Callable[[str, Dataset], Store], backbone: Backbone, dataset: Dataset,
    cells: Sequence[Cell], reading: _fill.Reading,
) -> Found:  # fmt: skip
    """Look at few steps on a part of the rows, then read the best of them whole.

    Args:
        judge: what judges a cell.
        folder: of looks.jsonl and map.jsonl, which make a second run go on where the first stopped.
        open_store: gives the store of this name for a data set.
        backbone, dataset, reading: what is read, and how.
        cells: the whole grid.
    """
    part = Part(dataset, PART, reading.seed, least=judge.shots + 1 if judge.shots else _judging.FOLDS)
    small, large = open_store("part", part), open_store("", dataset)
    steps = sorted({c.tap.t for c in cells}, key=lambda t: backbone.sigma(t) or 0)
    halving = Halving([(c.tap.block, c.pool) for c in cells if c.tap.t == steps[0]])
    looked: list[Record] = []

    def look(number: int) -> float:
        wanted = halving.cells(steps[number])
        _fill.fill(small, backbone, part, ("train", "val"), wanted, reading)
        found = _judging.records(folder / "looks.jsonl", wanted, lambda cell: judge.within(small, cell))
        looked.extend(found)
        return halving.after(found)

    values = golden_section([math.log(backbone.sigma(t) or 1e-9) for t in steps], look, LOOKS)
    rows, few = _count(dataset), _count(part)
    whole = int((BUDGET * len(steps) * rows - len(values) * few) / rows)
    best = sorted(values, key=lambda k: -values[k])[:whole]
    wanted = [cell for k in sorted(best) for cell in halving.cells(steps[k])]
    _fill.fill(large, backbone, dataset, ("train", "val"), wanted, reading)
    judged = _judging.records(folder / "map.jsonl", wanted, lambda cell: judge.on_val(large, cell))
    return Found(judged, looked, len(values) * few + len(best) * rows, len(steps) * rows)


def golden_section(where: Sequence[float], value: Callable[[int], float], most: int) -> dict[int, float]:
    """Seek the top of a curve with one top on a ladder of places, by looking at no more than `most` of them.

    Between the looks on both sides of the best one so far, the next is taken where the wider side is cut in golden
    ratio (Kiefer 1953). It ends when both neighbours of the best are known.

    Args:
        where: the places, ascending.
        value: the curve at a place, by its number.
        most: how many looks there are.

    Returns:
        the values seen, by number.
    """
    seen: dict[int, float] = {}
    low, high = 0, len(where) - 1
    while len(seen) < most:
        if len(seen) < 2:
            share = GOLDEN if not seen else 1 - GOLDEN
            target, between = where[low] + share * (where[high] - where[low]), range(low, high + 1)
        else:
            best = max(seen, key=lambda k: seen[k])
            left = max((k for k in seen if k < best), default=low - 1)
            right = min((k for k in seen if k > best), default=high + 1)
            sides = [range(left + 1, best), range(best + 1, right)]
            ends = where[max(left, low)], where[min(right, high)]
            wider = 0 if where[best] - ends[0] >= ends[1] - where[best] else 1
            between = sides[wider] if len(sides[wider]) else sides[1 - wider]
            end = ends[wider] if len(sides[wider]) else ends[1 - wider]
            target = where[best] + GOLDEN * (end - where[best])
        rest = [k for k in between if k not in seen]
        if not rest:
            break
        number = min(rest, key=lambda k: abs(where[k] - target))
        seen[number] = value(number)
    return seen


class Halving:
    """The places still in the race: from the second look on, the worse half leaves after each."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = list(places)
        self._least = max(BEST, math.ceil(KEPT * len(places)))
        self._best: dict[Place, tuple[float, float]] = {}
        self._looks = 0

    def cells(self, t: float | None) -> list[Cell]:
        """Their cells at a step."""
        return [Cell(Tap(block, t), pool) for block, pool in self.places]

    def after(self, found: Sequence[Record]) -> float:
        """Take a look's records in, and give what the step is worth: the mean of its best places."""
        for record in found:
            place = (record["block"], record["pool"])
            self._best[place] = max(self._best.get(place, (0.0, -math.inf)), (record["accuracy"], -record["loss"]))
        self._looks += 1
        if self._looks > 1:
            kept = sorted(self.places, key=lambda p: self._best[p], reverse=True)
            kept = kept[: max(self._least, len(kept) // 2)]
            self.places = [place for place in self.places if place in kept]
        return float(np.mean(sorted((r["accuracy"] for r in found), reverse=True)[:BEST]))


@final
class Part(Dataset):
    """A share of each class of train and val, drawn by the seed; images keep their numbers, and so their noise."""

    def __init__(self, inner: Dataset, share: float, seed: int, *, least: int) -> None:
        self._inner, self._share, self._seed, self._least = inner, share, seed, least
        self.name, self.classes = inner.name, inner.classes
        self.image_size, self.channels = inner.image_size, inner.channels
        told = hashlib.sha256(f"{inner.fingerprint} {share} {seed} {least}".encode())
        self.fingerprint = told.hexdigest()[:16]

    def build(self, split: str) -> Rows:
        """The rows of a split that are in it."""
        whole = self._inner.build(split)
        rows = self._rows(whole.labels)
        return Rows(whole.labels[rows], whole.index[rows], lambda wanted: whole.read(rows[np.asarray(wanted)]))

    def _rows(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        kept = []
        for label in np.unique(labels):
            own = np.flatnonzero(labels == label)
            chance = noise.generator(self._seed, int(label), draw=2, purpose=noise.SHOTS)
            kept.append(chance.permutation(own)[: max(self._least, round(self._share * len(own)))])
        return np.sort(np.concatenate(kept))


def _count(dataset: Dataset) -> int:
    return sum(len(dataset.build(split)) for split in ("train", "val"))

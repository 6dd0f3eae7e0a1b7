"""A good tap without reading them all: golden section over noise steps, successive halving over blocks and pools.

Curves of accuracy over the logarithm of sigma rise to one top and fall (P1's figure of accuracy over t), and a forward
pass at one step serves all blocks and pools. So what costs is steps, and they are what is searched for: on a part of
the rows, few steps are looked at; the best of these are read whole, and judged as the grid judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twofold.backbones.base import Backbone
from twofold.datasets.base import Dataset
from twofold.errors import BadSetting
from twofold.records import Cell, Tap
from twofold.steps import _fill, _judging, _spread
from twofold.steps._judging import Judge, Record
from twofold.steps._part import PARTED as SPLITS
from twofold.steps._part import Part
from twofold.store import Store

BUDGET = 0.25  # of the grid's forward passes
PART = 0.2  # of the rows, on which steps are looked at
LOOKS = (3, 5)  # at least, at most
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


@dataclass(frozen=True)
class Plan:
    """What a search may spend.

    Attributes:
        part: the rows that steps are looked at on.
        looks: how many steps are looked at.
        rows, few: images of train and val, and of the part of them.
        steps: all there are, ascending in sigma.
    """

    part: Part
    looks: int
    rows: int
    few: int
    steps: list[float | None]

    def whole(self, looks: int) -> int:
        """How many steps can be read whole after so many looks."""
        return int((BUDGET * len(self.steps) * self.rows - looks * self.few) / self.rows)


def plan(judge: Judge, backbone: Backbone, dataset: Dataset, cells: Sequence[Cell], seed: int) -> Plan:
    """Share the budget out.

    Raises:
        BadSetting: there are too few steps to leave most of them out.
    """
    steps = sorted({cell.tap.t for cell in cells}, key=lambda t: backbone.sigma(t) or 0)
    part = Part(dataset, PART, seed, least=judge.shots + 1 if judge.shots else _judging.FOLDS)
    rows, few = _count(dataset), _count(part)
    looks = int((BUDGET * len(steps) - 1) * rows / few)
    if looks < LOOKS[0]:
        wanted = math.ceil((1 + LOOKS[0] * few / rows) / BUDGET)
        raise BadSetting(
            f"--search adaptive leaves most noise steps out, and there {'is' if len(steps) == 1 else 'are'} "
            f"{len(steps)}. Give {wanted} or more with --t or --sigma, or --search grid."
        )
    return Plan(part, min(looks, LOOKS[1]), rows, few, steps)


def search(
    judge: Judge, planned: Plan, folder: Path, open_store: Callable[[str, Dataset], Store], backbone: Backbone,
    dataset: Dataset, cells: Sequence[Cell], reading: _fill.Reading,
) -> Found:  # fmt: skip
    """Look at few steps on a part of the rows, then read the best of them whole.

    Args:
        judge: what judges a cell.
        planned: what may be spent.
        folder: of looks.jsonl and map.jsonl, which make a second run go on where the first stopped.
        open_store: gives the store of this name for a data set.
        backbone, dataset, reading: what is read, and how.
        cells: the whole grid.
    """
    part, steps = planned.part, planned.steps
    small, large = open_store(f"part-{part.fingerprint[:8]}", part), open_store("", dataset)
    halving = Halving([(c.tap.block, c.pool) for c in cells if c.tap.t == steps[0]])
    looked: list[Record] = []

    def look(number: int) -> float:
        wanted = halving.cells(steps[number])
        _fill.fill(small, backbone, part, SPLITS, wanted, reading)
        found = _judging.records(folder / "looks.jsonl", wanted, lambda cell: judge.within(small, cell))
        looked.extend(found)
        return halving.after(found)

    values = golden_section([math.log(backbone.sigma(t) or 1e-9) for t in steps], look, planned.looks)
    best = sorted(values, key=lambda k: -values[k])[: planned.whole(len(values))]
    wanted = [cell for k in sorted(best) for cell in halving.cells(steps[k])]
    _spread.fill(large, backbone, dataset, SPLITS, wanted, reading)
    judged = _judging.records(folder / "map.jsonl", wanted, lambda cell: judge.on_val(large, cell))
    passes = len(values) * planned.few + len(best) * planned.rows
    return Found(judged, looked, passes, len(steps) * planned.rows)


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


def _count(dataset: Dataset) -> int:
    return sum(len(dataset.build(split)) for split in SPLITS)

"""What the papers report, as published.csv has it: facts of their tables and figures, each with its source.

paper, place      where it stands
read              table: as printed; vector, raster: measured in a figure, see `READ`
data              as DATA strings name it
method, head      whose features, and what classified them; block, t, pool where they are told
head_parameters   millions of weights of the head, for 1000 classes
top1, fid         accuracy in percent, Frechet Inception distance
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "published.csv"
READ = {
    "table": "as printed",
    "vector": "computed from the figure's paths, about ±0.05 points",
    "raster": "read off the figure's pixels, about ±0.03 points",
}


@dataclass(frozen=True)
class Published:
    """One line of the file; accuracy is a share, 0..1, and None stands for what is not told."""

    paper: str
    place: str
    read: str
    data: str
    method: str
    head: str
    block: str
    t: str
    pool: str
    head_parameters: float | None
    top1: float | None
    fid: float | None
    note: str

    @property
    def where(self) -> str:
        """Where features were read, in words; empty where nothing is told."""
        told = {"block ": self.block, "t\u00a0=\u00a0": self.t, "pool\u00a0": self.pool}
        size = "" if self.head_parameters is None else f"head of {self.head_parameters:g}\u00a0M"
        return ", ".join([*(f"{name}{value}" for name, value in told.items() if value), *filter(None, [size])])

    @property
    def source(self) -> str:
        """The paper, the place in it, and how the number was read."""
        note = f"; {self.note}" if self.note else ""
        return f"{self.paper}, {self.place} ({READ[self.read]}{note})"


@cache
def load() -> tuple[Published, ...]:
    """All of them, in the order of the file."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(_line(record) for record in csv.DictReader(file))


def _line(record: dict[str, str]) -> Published:
    told: dict[str, Any] = {**record, **{name: _number(record[name]) for name in ("head_parameters", "top1", "fid")}}
    top1 = told.pop("top1")
    return Published(**told, top1=None if top1 is None else top1 / 100)


def _number(text: str) -> float | None:
    return float(text) if text else None

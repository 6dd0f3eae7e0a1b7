"""How good a cell is: a head fitted on some labels, judged on others, in one record a cell that is never made twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold import files, runs
from twofold.errors import BadRun
from twofold.heads import base as heads
from twofold.records import Cell, Number, Tap
from twofold.steps import _shots
from twofold.store import Store, Table

# A line of map.jsonl, and of looks.jsonl.
JUDGED = {
    "cell": str, "block": int, "name": str, "t": Number | None, "sigma": Number | None, "pool": int,
    "share": Number, "accuracy": Number, "loss": Number, "n": int,
}  # fmt: skip
FOLDS = 4
Record = dict[str, Any]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Judge:
    """What judges a cell.

    Attributes:
        head: its name.
        shots, trials: labels a class, and over how many draws of them is averaged; 0 shots: all labels.
        seed: of the draws.
        memory: bytes that the tables of a cell may take.
    """

    head: str
    shots: int
    trials: int
    seed: int
    memory: int

    def on_val(self, table: Store, cell: Cell) -> Record:
        """Fitted on train, judged on all of val."""
        train, val = table.tables(("train", "val"), cell, self.memory).values()
        trials = range(self.trials) if self.shots else range(1)
        drawn = (train.some(_shots.draw(train.y, self.shots, self.seed + k)) if self.shots else train for k in trials)
        found = [self._judged(some, val) for some in drawn]
        return self._record(table, cell, found, len(val.y))

    def within(self, table: Store, cell: Cell) -> Record:
        """Fitted on some of the rows of train and val, judged on the rest, in turn: of few rows each one counts."""
        parts = [table.read(split, cell) for split in ("train", "val")]
        pooled = Table(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y", "index")))
        found = [self._judged(pooled.some(rows), pooled.some(rest)) for rows, rest in self._turns(pooled.y)]
        return self._record(table, cell, found, len(pooled.y))

    def _turns(self, labels: Rows) -> Iterator[tuple[Rows, Rows]]:
        """Rows to learn from and rows to be judged by: draws of the shots, or every fold once."""
        everything = np.arange(len(labels))
        if self.shots:
            drawn = (_shots.draw(labels, self.shots, self.seed + k) for k in range(self.trials))
            yield from ((rows, np.setdiff1d(everything, rows)) for rows in drawn)
        else:
            fold = np.empty(len(labels), np.int64)
            for label in np.unique(labels):
                fold[labels == label] = np.arange((labels == label).sum()) % FOLDS
            yield from ((everything[fold != k], everything[fold == k]) for k in range(FOLDS))

    def _judged(self, train: Table, held: Table) -> tuple[float, float]:
        head = heads.load(self.head).fit(train.x, train.y, val=(held.x, held.y))
        scores = head.scores(held.x)
        return float((head.classes_[scores.argmax(1)] == held.y).mean()), head.loss(scores, held.y)

    def _record(self, table: Store, cell: Cell, found: list[tuple[float, float]], n: int) -> Record:
        accuracy, loss = np.mean(found, 0)
        about = table.about_cell("val", cell)
        return {"cell": str(cell), **about, "accuracy": float(accuracy), "loss": float(loss), "n": n}


def records(path: Path, wanted: Sequence[Cell], judge: Callable[[Cell], Record]) -> list[Record]:
    """One record a cell, in the lines of a file; cells that are there already are not judged again."""
    known = {record["cell"]: record for record in files.read_lines(path, JUDGED)}
    for record in known.values():
        _check(path, record)
    todo = [cell for cell in wanted if str(cell) not in known]
    with runs.progress(len(wanted), "judge", done=len(wanted) - len(todo), unit="cells") as bar:
        for cell in todo:
            record = judge(cell)
            files.append_lines(path, [record])
            known[str(cell)] = record
            bar.advance(1, f"{cell} {100 * record['accuracy']:.1f} %")
    return [known[str(cell)] for cell in wanted]


def _check(path: Path, record: Record) -> None:
    """Refuse a line whose parts contradict each other."""
    t, told = record["t"], str(Cell(Tap(record["block"], record["t"]), record["pool"]))
    if told != record["cell"] or (t is None) != (record["sigma"] is None) or not math.isfinite(record["accuracy"]):
        raise BadRun(f"{path} is damaged at {record['cell']}. Delete that line and run the same command again.")

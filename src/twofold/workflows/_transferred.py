"""The table of `transfer`: cells in, CSV, JSON lines, Markdown, LaTeX and a picture out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twofold import files, results
from twofold.plots.bars import Bars, grouped_bars
from twofold.records import Score

MEASURE = "top-1 accuracy on test, %"
PIXELS = "raw pixels"
OWN = ("data", "model", "head", "row", "control", "state", "top1", "low", "high", "n", "seeds")
# What a score says of itself.
SAID = ("block", "t", "sigma", "pool", "shots", "passes", "parameters", "operations", "images_per_second")
COLUMNS = (*OWN, *SAID, "run", "reason")
LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
})  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A model on a data set with a head.

    Attributes:
        data, model, head: how they are called.
        folder: of its run of `probe`.
        state: `unfinished`, `done` or `failed`.
        problem: why it failed, in a line.
    """

    data: str
    model: str
    head: str
    folder: Path
    state: str = "unfinished"
    problem: str = ""

    def ended(self, problem: str) -> Cell:
        """The cell when its turn is over."""
        return replace(self, state="failed" if problem else "done", problem=problem)

    @property
    def told(self) -> str:
        """Which cell it is and why it failed."""
        return f"{self.model} on {self.data} with {self.head}: {self.problem}"

    @property
    def scores(self) -> list[Score]:
        """Top-1 of the model and its controls; none of a cell that is not done."""
        return [s for s in results.read(self.folder) if s.name == "top1"] if self.state == "done" else []


def begun(data: str, model: str, head: str, folder: Path) -> Cell:
    """A cell before its turn: what an earlier command has done stays in the table."""
    run = folder / files.slug(head)
    return Cell(data, model, head, run, "done" if (run / "finished.json").exists() else "unfinished")


@dataclass(frozen=True)
class Line:
    """One score, or one cell that has none; `row` is what a table calls it."""

    cell: Cell
    row: str
    score: Score | None

    @property
    def control(self) -> bool:
        """Whether it is there to be compared with."""
        return self.score is not None and bool(self.score.about["control"])

    @property
    def pixels(self) -> bool:
        """Whether it is the control that reads the images themselves."""
        return self.control and self.score is not None and self.score.about["row"] == "pixels"

    @property
    def method(self) -> str:
        """What was read, and by which head."""
        return f"{self.row}, {self.cell.head}"


def lines(cells: Sequence[Cell]) -> list[Line]:
    """Models first, then their untrained networks, then pixels; a control that two models measured alike once."""
    found: dict[tuple[str, str, str], Line] = {}
    for cell in cells:
        scores: list[Score | None] = [*cell.scores] or [None]
        for score in scores:
            row = cell.model if score is None else _row(cell, score)
            found.setdefault((cell.data, row, cell.head), Line(cell, row, score))
    sizes = {(data, row) for (data, row, _), line in found.items() if line.pixels}
    one = [data for data, _ in sizes if sum(data == other for other, _ in sizes) == 1]
    named = (replace(line, row=PIXELS) if line.pixels and line.cell.data in one else line for line in found.values())
    return sorted(named, key=lambda line: (line.control, line.pixels))


def _row(cell: Cell, score: Score) -> str:
    """A control is called after the model, pixels after their size."""
    if not score.about["control"]:
        return cell.model
    size = score.about["pool"]
    return f"{cell.model}, untrained" if score.about["row"] == "untrained" else f"{PIXELS}, {size}\u00d7{size}"


def write(out: Path, cells: Sequence[Cell]) -> None:
    """The table in every shape, each file at once."""
    records = [_record(out, line) for line in lines(cells)]
    files.write_csv(out / "table.csv", [COLUMNS, *([_plain(r[name]) for name in COLUMNS] for r in records)])
    files.write_text(out / "table.jsonl", "".join(json.dumps(r) + "\n" for r in records))
    files.write_text(out / "table.md", _markdown(cells))
    files.write_text(out / "table.tex", _latex(cells))


def written(out: Path) -> dict[str, str]:
    """The files of a table, for the facts of a run."""
    return {"table": str(out / "table.csv"), "picture": str(out / "bars.png")}


def _record(out: Path, line: Line) -> dict[str, Any]:
    """A line with all that is known; accuracies are shares, 0..1."""
    cell, score = line.cell, line.score
    named = {"data": cell.data, "model": cell.model, "head": cell.head, "row": line.row, "control": line.control}
    ended = {"state": cell.state, "run": cell.folder.relative_to(out).as_posix(), "reason": cell.problem}
    found = dict.fromkeys(COLUMNS) | named | ended
    if score is None:
        return found
    told = {"top1": score.value, "low": score.low, "high": score.high, "n": score.n, "seeds": len(score.seeds)}
    return found | {name: score.about.get(name) for name in SAID} | told


def _plain(value: Any) -> str:
    return "" if value is None else str(value)


def _grid(cells: Sequence[Cell]) -> tuple[list[str], list[tuple[str, list[Line | None]]]]:
    """Names of data sets, and for each method its line on each of them."""
    data = list(dict.fromkeys(cell.data for cell in cells))
    found: dict[str, dict[str, Line]] = {}
    for line in lines(cells):
        found.setdefault(line.method, {})[line.cell.data] = line
    return data, [(method, [own.get(name) for name in data]) for method, own in found.items()]


def _entry(line: Line | None) -> str:
    """A cell in words: percent with its interval, or what became of it."""
    if line is None:
        return ""
    return line.cell.state if line.score is None else results.percent(line.score)


def text(cells: Sequence[Cell]) -> str:
    """The table for a terminal."""
    data, rows = _grid(cells)
    heading = [MEASURE, *data]
    return results.table([heading, *([method, *map(_entry, found)] for method, found in rows)])


def _failures(cells: Sequence[Cell]) -> list[str]:
    return [cell.told for cell in cells if cell.problem]


def _markdown(cells: Sequence[Cell]) -> str:
    data, rows = _grid(cells)
    escaped = [[MEASURE, *data], *([method, *map(_entry, found)] for method, found in rows)]
    told = [" | ".join(word.replace("|", "\\|") for word in row) for row in escaped]
    told.insert(1, " | ".join(["---", *["---:"] * len(data)]))
    notes = "".join(f"\n- Failed: {problem}" for problem in _failures(cells))
    return "\n".join(f"| {row} |" for row in told) + "\n" + (f"{notes}\n" if notes else "")


def _latex(cells: Sequence[Cell]) -> str:
    """A tabular of booktabs, intervals small beside their values."""
    data, rows = _grid(cells)

    def entry(line: Line | None) -> str:
        value, _, interval = _entry(line).partition(" (")
        return value + (f" {{\\scriptsize ({interval.replace(' to ', '--')}}}" if interval else "")

    heading = " & ".join(word.translate(LATEX) for word in (MEASURE, *data))
    body = [" & ".join([method.translate(LATEX), *map(entry, found)]) for method, found in rows]
    notes = [f"% failed: {problem}" for problem in _failures(cells)]
    return "\n".join([
        "% needs \\usepackage{booktabs}; intervals are 95 % bootstrap intervals", *notes,
        f"\\begin{{tabular}}{{l{'r' * len(data)}}}", "\\toprule", f"{heading} \\\\", "\\midrule",
        *(f"{row} \\\\" for row in body), "\\bottomrule", "\\end{tabular}", "",
    ])  # fmt: skip


def draw(out: Path, cells: Sequence[Cell]) -> None:
    """Grouped bars of what is done, a group a data set (P1, fine-grained figure): controls hatched."""
    data, rows = _grid(cells)
    bars = [
        Bars(method, any(line and line.control for line in found), [_percents(line) for line in found])
        for method, found in rows
        if any(line and line.score for line in found)
    ]
    if bars:
        for name in ("bars.png", "bars.svg"):
            grouped_bars(data, bars, MEASURE, out / name)


def _percents(line: Line | None) -> tuple[float, float, float] | None:
    """Value and ends of the interval in percent."""
    if line is None or line.score is None:
        return None
    score = line.score
    low, high = (score.value if end is None else end for end in (score.low, score.high))
    return 100 * score.value, 100 * low, 100 * high

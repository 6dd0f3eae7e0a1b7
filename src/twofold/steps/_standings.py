"""Test scores of many runs as leaderboards: grouped by data and labels, best first, controls marked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twofold import results
from twofold.errors import BadSetting
from twofold.records import Cell, Score
from twofold.steps import _rows
from twofold.steps._page import RunFolder, labels_text, place, undamaged

NAMES = {"top1": "top-1 accuracy", "top5": "top-5 accuracy"}
# Measures that say more about a row whose accuracy has its line: they are in results.jsonl.
BESIDE = {
    "top5": "Top-5, %", "mean_per_class": "Mean per class, %", "calibration_error": "Calibration error, %",
    "top1_difference": "Difference, points",
}  # fmt: skip
ELSEWHERE = ("sample", "fid", "select", "pretrain")  # their scores have sections of their own, or are no test scores
PIXELS = "raw pixels"
CHART_MOST = 30
SEEDS_SHOWN = 5


@dataclass(frozen=True)
class Row:
    """One score with its words.

    Attributes:
        score: as the run wrote it.
        run: name of the run.
        label: what was read: a model's name, `raw pixels`, or `... untrained`.
        place: where it was read.
        beside: other measures of the same answers in words, by the names of `BESIDE`.
    """

    score: Score
    run: str
    label: str
    place: str
    beside: dict[str, str]

    @property
    def control(self) -> bool:
        """Whether it is there to be compared with."""
        return bool(self.score.about.get("control"))

    @property
    def head(self) -> str:
        """The head's name."""
        return str(self.score.about.get("head", "–"))

    @property
    def value(self) -> str:
        """Percent with one digit."""
        return percent(self.score.value)

    @property
    def interval(self) -> str:
        """The 95 % interval in percent; empty where there is none."""
        low, high = self.score.low, self.score.high
        return "" if low is None or high is None else f"{percent(low)} to {percent(high)}"

    @property
    def seeds(self) -> list[str]:
        """Percent for each seed."""
        return [percent(v) for v in self.score.about.get("per_seed", [])]

    @property
    def spread(self) -> str:
        """The seeds' percents, or their range where they are many."""
        if len(self.seeds) <= SEEDS_SHOWN:
            return " · ".join(self.seeds)
        return f"{min(self.seeds, key=float)} to {max(self.seeds, key=float)}"

    @property
    def kind(self) -> str:
        """What a control is."""
        return "the same network untrained" if self.score.about.get("row") == "untrained" else self.label


@dataclass(frozen=True)
class Group:
    """The rows of one data set, number of labels and measure, best first."""

    data: str
    shots: int
    measure: str
    rows: list[Row]

    @property
    def labels(self) -> str:
        """How many labels the heads learned from."""
        return labels_text(self.shots)

    @property
    def beside(self) -> list[str]:
        """The other measures that a row has, in order."""
        return [name for name in BESIDE if any(name in row.beside for row in self.rows)]

    @property
    def untrained(self) -> bool:
        """Whether a row reads a network with random weights."""
        return any(row.score.about.get("row") == "untrained" for row in self.rows)

    @property
    def best(self) -> Row:
        """The row to speak of: among networks that are no controls, the one that is best on val, never on test."""
        asked = [r for r in self.rows if not r.control]
        own = [r for r in asked if r.label != PIXELS] or asked or self.rows
        return max(own, key=lambda r: float(r.score.about.get("val", 0.0)))

    @property
    def rivals(self) -> list[Row]:
        """The best of raw pixels, as a control or as a model, and of the same network untrained."""
        pixels = [r for r in self.rows if r.label == PIXELS != self.best.label]
        untrained = [r for r in self.rows if r.control and r.score.about.get("row") == "untrained"]
        same = [r for r in untrained if _network(r) == _network(self.best)]
        return [r for r in (*pixels[:1], *same[:1]) if r is not self.best]


def percent(share: float) -> str:
    """A share in percent with one digit."""
    return f"{100 * share:.1f}"


def groups(shown: Sequence[RunFolder]) -> list[Group]:
    """All test scores of all runs: data sets in alphabetical order, all labels before few."""
    found: dict[tuple[str, int, str], dict[str, Row]] = {}
    for run in shown:
        with undamaged(run.folder / "results.jsonl"):
            for score in _tested(run):
                about = score.about
                measure = NAMES.get(score.name, score.name)
                key = (run.short(str(about.get("data", "–"))), int(about.get("shots", 0)), measure)
                found.setdefault(key, {}).setdefault(_same(run, score), _row(run, score))
    ordered = sorted(found.items(), key=lambda item: item[0])
    return [Group(*key, sorted(rows.values(), key=lambda r: -r.score.value)) for key, rows in ordered]


def _tested(run: RunFolder) -> list[Score]:
    if run.verb in ELSEWHERE:
        return []
    beside = BESIDE if run.verb == "probe" else ()
    tested = (s for s in run.scores if s.split == "test" and 0 <= s.value <= 1)
    return [s for s in tested if s.name not in beside and not is_distance(s.name)]


def is_distance(name: str) -> bool:
    """Whether a score is a Frechet distance, which has boards of its own."""
    return name == "fid" or name.startswith("fd_")


def _same(run: RunFolder, score: Score) -> str:
    """What makes two rows one: a control that several runs measured alike is shown once, however fast it was read."""
    owner = "" if score.about.get("control") else run.name
    about = {name: value for name, value in score.about.items() if name != "images_per_second"}
    return owner + json.dumps(score.record() | {"about": about}, sort_keys=True, default=str)


def _row(run: RunFolder, score: Score) -> Row:
    about = score.about
    return Row(score, run.name, _label(run, about), _place(about), _beside(run, about))


def _beside(run: RunFolder, about: dict[str, Any]) -> dict[str, str]:
    """The other measures of a row and head of a probe."""
    own = [s for s in run.scores if s.name in BESIDE and _answers(s.about) == _answers(about)]
    return {} if run.verb != "probe" else {s.name: _measure_text(s) for s in own}


def _answers(about: dict[str, Any]) -> tuple[str, str]:
    return str(about.get("row")), str(about.get("head"))


def _measure_text(score: Score) -> str:
    """A measure with its interval; a difference is signed and has the p of its test."""
    if "p" not in score.about:
        return results.percent(score)
    return f"{results.percent(score, signed=True)}, {results.p_text(float(score.about['p']))}"


def _label(run: RunFolder, about: dict[str, Any]) -> str:
    model = run.short(str(about.get("model", about.get("row", "–"))))
    if about.get("row") == "pixels" or model.partition(":")[0] == "pixels":
        return PIXELS
    return model.replace("?untrained", ", untrained")


def _place(about: dict[str, Any]) -> str:
    """Where it was read; empty where the score does not say."""
    if about.get("pool") is None or about.get("block") is None:
        return ""
    if about["block"] == "pixels":
        return f"the image itself, {about['pool']}\u00d7{about['pool']}"
    if "noises" in about:
        return _rows.place_text(about)
    try:
        number = Cell.parse(str(about.get("cell"))).tap.block
    except BadSetting:
        number = None
    if "steps" in about:
        return f"{about['block']}, {_rows.noise_text(about)}, pool\u00a0{about['pool']}"
    return place(number, about["block"], about.get("t"), about.get("sigma"), about["pool"])


def _network(row: Row) -> str:
    return str(row.score.about.get("model", "")).partition("?")[0]


def apart(one: Row, other: Row) -> bool:
    """Whether the two intervals do not overlap."""
    if None in (one.score.low, one.score.high, other.score.low, other.score.high):
        return False
    return bool(one.score.low > other.score.high or other.score.low > one.score.high)  # type: ignore[operator]


def chart(group: Group) -> dict[str, Any]:
    """Points with intervals on one axis: ticks and bars as percent of the axis' width.

    The axis starts below the lowest interval rather than at zero, so values are drawn as points and not as lengths.
    """
    rows = group.rows[:CHART_MOST]
    start, step = _axis(min(100 * (r.score.value if r.score.low is None else r.score.low) for r in rows))

    def at(value: float) -> float:
        return round(100 * (value - start) / (100 - start), 2)

    ticks = [(tick, at(tick)) for tick in range(start, 101, step)]
    return {
        "ticks": ticks,
        "start": start,
        "left_out": len(group.rows) - len(rows),
        "bars": [_bar(row, name, at) for row, name in zip(rows, _names(rows), strict=True)],
    }


def _bar(row: Row, name: str, at: Callable[[float], float]) -> dict[str, Any]:
    score = row.score
    low, high = (100 * (score.value if end is None else end) for end in (score.low, score.high))
    return {
        "row": row,
        "name": name,
        "at": at(100 * score.value),
        "left": at(low),
        "width": round(at(high) - at(low), 2),
    }


def _names(rows: Sequence[Row]) -> list[str]:
    """What was read and by which head; the run too, where that alone names several rows."""
    plain = [f"{row.label} · {row.head}" for row in rows]
    return [n if plain.count(n) == 1 else f"{n} · {row.run}" for n, row in zip(plain, rows, strict=True)]


def _axis(lowest: float) -> tuple[int, int]:
    """Start and step of an axis that ends at 100: about five steps of a round number."""
    lowest = min(lowest, 100.0)
    for step in (1, 2, 5, 10, 20):
        start = max(0, int((lowest - 0.2 * step) // step * step))
        if (100 - start) / step <= 6 and not (100 - start) % step:
            return start, step
    return 0, 20

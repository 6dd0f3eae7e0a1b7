"""Leaderboards: for each task and data set all methods that were measured, beside those that papers report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from twofold import files, runs
from twofold.datasets import base as datasets
from twofold.records import Score, number_text
from twofold.steps import _published, _standings
from twofold.steps._page import RunFolder, undamaged
from twofold.steps._published import Published

CLASSIFICATION, GENERATION = "classification", "generation"
TASKS = (CLASSIFICATION, GENERATION)
PLACES = ("folder", "hf", "wds")  # their arguments say which data it is; those of others only where it lies
SPLIT = f"@({'|'.join(datasets.SPLITS)})$"
KINDS = {"measured": "measured", "control": "controls", "reported": "reported"}
MEASURES = {"fid": "FID"}


@dataclass(frozen=True)
class Value:
    """A number with the ends of its 95 % interval; accuracies are shares, 0..1."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Entry:
    """One row of a board.

    Attributes:
        task, data: of which board.
        method: a network, or what a paper calls it.
        kind: measured, control or reported.
        values: by the names of scores: top1, fid, fd_<features>.
        head: what classified.
        place: where features were read, in words.
        labels: how many a class the head learned from, or `all`.
        n: images that were measured on.
        seeds: how many.
        parameters, operations, speed: weights of the network, FLOPs an image as it was read, images a second.
        run: name of the run, empty for what is reported.
        source: of what is reported.
        network: hash of the network's weights; empty where nothing says it.
    """

    task: str
    data: str
    method: str
    kind: str
    values: dict[str, Value]
    head: str = ""
    place: str = ""
    labels: str = ""
    n: int | None = None
    seeds: int | None = None
    parameters: float | None = None
    operations: float | None = None
    speed: float | None = None
    run: str = ""
    source: str = ""
    network: str = ""

    @property
    def slug(self) -> str:
        """The method's name as that of a page."""
        return files.slug(self.method)


@dataclass(frozen=True)
class Board:
    """All entries of a task and data set, the best first."""

    task: str
    data: str
    entries: list[Entry] = field(repr=False)

    @property
    def measures(self) -> list[str]:
        """Names of Frechet distances that an entry has."""
        found = {name for entry in self.entries for name in entry.values if name != "top1"}
        return sorted(found, key=lambda name: (name != "fid", name))

    @property
    def main(self) -> str:
        """What the board is sorted by."""
        return "top1" if self.task == CLASSIFICATION else self.measures[0]

    @property
    def kinds(self) -> dict[str, str]:
        """The kinds there are, in words."""
        return {kind: words for kind, words in KINDS.items() if any(e.kind == kind for e in self.entries)}

    def has(self, name: str) -> bool:
        """Whether any entry says this."""
        return any(getattr(entry, name) not in (None, "") for entry in self.entries)

    def best(self, kind: str) -> Entry | None:
        """The first entry of a kind."""
        return next((entry for entry in self.entries if entry.kind == kind and self.main in entry.values), None)

    @property
    def slug(self) -> str:
        """The data set's name as that of a page."""
        return files.slug(self.data)


def title(name: str) -> str:
    """What a column of a measure is called."""
    return MEASURES.get(name, name.replace("fd_", "FD ").replace("_", " "))


def boards(entries: Iterable[Entry]) -> list[Board]:
    """Entries as boards: classification first, data sets in alphabetical order, the best entry first."""
    found: dict[tuple[int, str], list[Entry]] = {}
    for entry in entries:
        found.setdefault((TASKS.index(entry.task), entry.data), []).append(entry)
    made = [Board(TASKS[task], data, own) for (task, data), own in sorted(found.items())]
    return [replace(board, entries=sorted(board.entries, key=lambda e: _order(board, e))) for board in made]


def _order(board: Board, entry: Entry) -> float:
    """Accuracies from the highest, distances from the lowest, what has none last."""
    value = entry.values.get(board.main)
    sign = -1 if board.task == CLASSIFICATION else 1
    return float("inf") if value is None else sign * value.value


def measured(shown: Sequence[RunFolder]) -> list[Entry]:
    """What runs say; an accuracy has the Frechet distances of the same network on the same data beside it."""
    generated: dict[tuple[str, str, str], Entry] = {}
    for run in shown:
        with undamaged(run.folder / "results.jsonl"):
            for score in run.scores:
                if _standings.is_distance(score.name):
                    entry = _generated(run, score)
                    known = generated.setdefault((entry.data, entry.method, entry.run), entry)
                    known.values.update(entry.values)
    return [*(replace(e, values=_beside(e, generated.values()) | e.values) for e in _classified(shown)),
            *generated.values()]  # fmt: skip


def _beside(entry: Entry, generated: Iterable[Entry]) -> dict[str, Value]:
    """The distances of the network of an accuracy: of its name, and of its weights where both say which."""
    found: dict[str, Value] = {}
    for other in generated:
        same = entry.network == other.network or not (entry.network and other.network)
        if same and (entry.data, entry.method) == (other.data, other.method):
            found |= other.values
    return found


def _classified(shown: Sequence[RunFolder]) -> Iterator[Entry]:
    """Test accuracies; a control that several runs measured alike once."""
    for group in _standings.groups(shown):
        runs = {run.name: run for run in shown}
        for row in group.rows if group.measure == _standings.NAMES["top1"] else ():
            about, score = row.score.about, row.score
            yield Entry(
                CLASSIFICATION, data_name(str(about.get("data", group.data)), runs[row.run]), row.label,
                "control" if row.control else "measured", {"top1": Value(score.value, score.low, score.high)},
                row.head, row.place, str(group.shots or "all"), score.n, len(score.seeds), about.get("parameters"),
                about.get("operations"), about.get("images_per_second"), row.run,
                network="" if row.control else _network(runs[row.run]),
            )  # fmt: skip


def _generated(run: RunFolder, score: Score) -> Entry:
    """A distance of images from those of a data set."""
    about = score.about
    behind = generator(about)
    method = run.short(behind.get("model") or str(about.get("a", run.name)))
    data = data_name(re.sub(SPLIT, "", str(about.get("b", "–"))), run)
    return Entry(
        GENERATION, data, method, "measured", {score.name: Value(score.value, score.low, score.high)}, n=score.n,
        seeds=len(score.seeds) or None, run=run.name, network=behind.get("network", ""),
    )  # fmt: skip


def generator(about: Mapping[str, Any]) -> dict[str, str]:
    """The model behind images that a distance was measured of, and the hash of its weights; what nothing says lacks.

    A run of `sample` says it, and for a ledger the score itself.
    """
    if "model" in about:
        return {name: str(about[name]) for name in ("model", "network") if name in about}
    given = Path(str(about.get("a", "")))
    for folder in (given, given.parent):
        if (folder / "config.toml").is_file():
            config = runs.read_config(folder)
            found = {
                "model": config.get("settings", {}).get("model"), "network": config.get("inputs", {}).get("model"),
            } if config["verb"] == "sample" else {}  # fmt: skip
            return {name: str(value) for name, value in found.items() if value}
    return {}


def _network(run: RunFolder) -> str:
    """The hash of the weights that a run reads."""
    return str(_inputs(run).get("model", ""))


def _inputs(run: RunFolder) -> dict[str, Any]:
    """What a run was made from, by hash; of a ledger's run the ledger says it."""
    told = runs.read_config(run.folder) if run.folder.is_dir() else run.finished or {}
    return dict(told.get("inputs", {}))


def apart(shown: Sequence[RunFolder]) -> list[RunFolder]:
    """Runs that call different data sets of one name, such as two `folder:photos`, by the beginnings of their hashes.

    A set whose name alone says what it is stays one, whatever files it lies in: papers report of it too.
    """
    own = [_data(run) for run in shown]
    hashes: dict[str, set[str]] = {}
    for name, told in (pair for pair in own if pair is not None):
        hashes.setdefault(name, set()).add(told)
    return [
        replace(run, called={pair[0]: f"{pair[0]} ({pair[1]})"}) if pair and len(hashes[pair[0]]) > 1 else run
        for run, pair in zip(shown, own, strict=True)
    ]


def _data(run: RunFolder) -> tuple[str, str] | None:
    """What the data of a run's test scores is called, and the beginning of its hash; None where it has its own name."""
    of_images = any(_standings.is_distance(score.name) for score in run.scores)
    given = [str(score.about.get("b" if of_images else "data", "")) for score in run.scores][:1]
    name = re.sub(SPLIT, "", given[0]) if given else ""
    told = str(_inputs(run).get("b" if of_images else "data", ""))[:6]
    return (run.short(name), told) if told and name.partition(":")[0] in PLACES else None


def data_name(data: str, run: RunFolder) -> str:
    """A data set's name on boards: without the folder it lies in, unless that says which it is, or a part of it."""
    name, _, argument = data.partition(":")
    return name if argument and name not in PLACES and "?" not in argument else run.short(data)


def reported(data: Iterable[str] | None = None) -> list[Entry]:
    """What papers report, of some data sets or (None) of all; a network's FID once for each paper."""
    wanted = None if data is None else set(data)
    lines = [line for line in _published.load() if wanted is None or line.data in wanted]
    seen = {(line.paper, line.method, line.data): line for line in reversed(lines) if line.fid is not None}
    return [*map(_reported, lines), *(_reported(line, GENERATION) for line in reversed(seen.values()))]


def _reported(line: Published, task: str = CLASSIFICATION) -> Entry:
    values = {name: Value(v) for name in ("top1", "fid") if (v := getattr(line, name)) is not None}
    if task == GENERATION:
        return Entry(task, line.data, line.method, "reported", {"fid": values["fid"]}, source=line.source)
    return Entry(task, line.data, line.method, "reported", values, line.head, line.where, "all", source=line.source)


def amount(value: float | None) -> str:
    """A large number in words: 552.8 M, 639 G."""
    if value is None:
        return ""
    for name, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.{1 if value < 100 * size else 0}f}\u00a0{name}"
    return number_text(round(value, 1 if value < 100 else None))


def value_text(name: str, value: Value) -> tuple[str, str]:
    """A measure and its interval as text, accuracies in percent; what a paper gives with two digits keeps them."""
    factor, digits = (100, 1) if name == "top1" else (1, 2)
    if value.low is None or value.high is None:
        return f"{factor * value.value:.2f}".removesuffix("0"), ""
    own, low, high = (f"{factor * v:.{digits}f}" for v in (value.value, value.low, value.high))
    return own, f"{low} to {high}"

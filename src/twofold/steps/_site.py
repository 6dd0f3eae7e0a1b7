"""The pages of a ledger, as plain files that link to each other: tasks, data sets, methods and runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from twofold import files
from twofold.steps import _boards
from twofold.steps._boards import Board, Entry
from twofold.steps._page import RunFolder

HOME = "index.html"
TASK_TOLD = {
    "classification": "Top-1 accuracy of heads on features, on the test images of a data set.",
    "generation": "Frechet distance between generated images and those of a data set: lower is better.",
}
LEDE = (
    "Scores of runs that were submitted with their provenance, beside those that papers report. Measured rows link to "
    "the run that made them and its command; reported rows name the table or figure they stand in."
)
OF_METHOD = "Everything that was measured of it, or is reported of it, on every task and data set."


@dataclass(frozen=True)
class Link:
    """A line of a list: where it leads and what is said beside it."""

    href: str
    label: str
    told: str = ""


@dataclass(frozen=True)
class Page:
    """What the template of the site shows; all addresses are relative to the page.

    Attributes:
        path: of the file, relative to the site.
        title, lede: what it is about.
        crumbs: the way back, beginning at the first page.
        lists: headings and their links.
        boards: headings and the boards below them.
        facts: names and values of a run.
        command: what made the run.
    """

    path: str
    title: str
    lede: str
    crumbs: list[Link] = field(default_factory=list)
    lists: list[tuple[str, list[Link]]] = field(default_factory=list)
    boards: list[tuple[str, Board]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    command: str = ""

    @property
    def up(self) -> str:
        """What leads to the site's folder."""
        return "../" * self.path.count("/")


def pages(shown: Sequence[RunFolder]) -> list[Page]:
    """All pages of a ledger's runs and of what papers report."""
    measured = _boards.measured(shown)
    names = _ambiguous(measured)
    entries = [*_distinct(measured, names), *_boards.reported()]
    boards = _boards.boards(entries)
    methods = _by_method(entries)
    return [
        _home(boards, methods, shown),
        *(_task(task, [b for b in boards if b.task == task]) for task in _boards.TASKS),
        *(_data(data, [b for b in boards if b.data == data]) for data in dict.fromkeys(b.data for b in boards)),
        *(_method(name, own) for name, own in methods.items()),
        *(_run(run, _distinct(_boards.measured([run]), names)) for run in shown),
    ]


def _ambiguous(entries: Sequence[Entry]) -> dict[tuple[str, str], str]:
    """For methods whose name several networks have: (method, run) -> the name with the beginning of its hash."""
    own = {(e.method, e.run): e.network[:6] for e in entries if e.kind == "measured" and e.network}
    networks: dict[str, set[str]] = {}
    for (method, _), told in own.items():
        networks.setdefault(method, set()).add(told)
    return {key: f"{key[0]} ({told})" for key, told in own.items() if len(networks[key[0]]) > 1}


def _distinct(entries: Sequence[Entry], names: dict[tuple[str, str], str]) -> list[Entry]:
    """Entries under the names that tell networks apart."""
    return [replace(e, method=names.get((e.method, e.run), e.method)) for e in entries]


def _by_method(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda e: e.method.lower()):
        found.setdefault(entry.method, []).append(entry)
    return found


def _home(boards: Sequence[Board], methods: dict[str, list[Entry]], shown: Sequence[RunFolder]) -> Page:
    lists = [(f"{task.capitalize()}, by data set", _links(boards, task, "")) for task in _boards.TASKS]
    lists.append(("Methods", [_method_link(name, own) for name, own in methods.items()]))
    lists.append(("Submitted runs", [_run_link(run) for run in shown]))
    return Page(HOME, "Leaderboards", LEDE, lists=[(heading, links) for heading, links in lists if links])


def _links(boards: Sequence[Board], task: str, up: str) -> list[Link]:
    return [Link(f"{up}data/{b.slug}.html", b.data, _told(b)) for b in boards if b.task == task]


def _told(board: Board) -> str:
    """The best of a board, measured and reported, and how many rows there are."""
    best = [(kind, board.best(kind)) for kind in ("measured", "reported")]
    words = [f"{kind} {_told_entry(board, entry)}" for kind, entry in best if entry is not None]
    rows = f"{len(board.entries)} row{'' if len(board.entries) == 1 else 's'}"
    return f"{rows}; best {' and '.join(words)}" if words else rows


def _told_entry(board: Board, entry: Entry) -> str:
    value = _boards.value_text(board.main, entry.values[board.main])[0]
    unit = "\u00a0%" if board.main == "top1" else ""
    return f"{value}{unit} by {entry.method}{f', {entry.head}' if entry.head else ''}"


def _method_link(name: str, own: Sequence[Entry]) -> Link:
    told = ", ".join(dict.fromkeys(f"{entry.data}" for entry in own))
    return Link(f"methods/{files.slug(name)}.html", name, f"on {told}")


def _run_link(run: RunFolder, up: str = "") -> Link:
    return Link(f"{up}runs/{_run_page(run)}", run.name, f"{run.verb}, {run.setting('data')}")


def _run_page(run: RunFolder) -> str:
    return f"{run.folder.stem}.html"


def _back(*more: Link) -> list[Link]:
    return [Link(f"../{HOME}", "Leaderboards"), *more]


def _task(task: str, boards: Sequence[Board]) -> Page:
    lists = [("Data sets", _links(boards, task, "../"))] if boards else []
    return Page(f"tasks/{task}.html", task.capitalize(), TASK_TOLD[task], _back(), lists)


def _data(data: str, boards: Sequence[Board]) -> Page:
    told = "All methods on this data set. A heading sorts its column; what is typed above a table filters its rows."
    headings = [(board.task.capitalize(), board) for board in boards]
    return Page(f"data/{files.slug(data)}.html", data, told, _back(), boards=headings)


def _method(name: str, own: Sequence[Entry]) -> Page:
    found = [(f"{board.task.capitalize()} on {board.data}", board) for board in _boards.boards(own)]
    return Page(f"methods/{files.slug(name)}.html", name, OF_METHOD, _back(), boards=found)


def _run(run: RunFolder, entries: Sequence[Entry]) -> Page:
    """Everything that the ledger keeps of a run."""
    kept = run.finished or {}
    facts: list[tuple[str, Any]] = [
        ("verb", run.verb), ("submitted", kept["submitted"]), *((f"hash of {n}", v) for n, v in kept["inputs"].items()),
        *run.settings.items(), *((n, v) for n, v in run.made.items() if n != "command"),
    ]  # fmt: skip
    told = [(name, ", ".join(map(str, v)) if isinstance(v, list) else str(v)) for name, v in facts]
    headings = [(f"{b.task.capitalize()} on {b.data}", b) for b in _boards.boards(entries)]
    lede = "A submitted run: its scores, the command that made it, its settings, versions and what it was made from."
    command = str(run.made.get("command", ""))
    return Page(f"runs/{_run_page(run)}", run.name, lede, _back(), boards=headings, facts=told, command=command)

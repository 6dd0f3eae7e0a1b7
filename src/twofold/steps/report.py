"""Write one page about any set of runs: pictures, maps, leaderboards and commands, in a single file."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold import files, runs
from twofold.errors import BadRun, BadSetting
from twofold.records import Outcome
from twofold.settings import Settings, setting
from twofold.steps import _boards, _compared, _ledger, _page, _pages, _site, _standings
from twofold.steps._page import RunFolder
from twofold.steps._standings import Group, Row

BOARD_WORDS = {"value_text": _boards.value_text, "amount": _boards.amount, "title_of": _boards.title}
VERBS = ("pretrain", "sample", "fid", "select", "compare", "probe")  # that have something to show
HEADLINES = 4  # groups of scores that are summed up at the top


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold report`."""

    runs: tuple[Path, ...] = setting(
        (), positional=True, help="run folders to show, in the order of the page; of transfer: all its runs"
    )
    out: Path | None = setting(
        None, help="folder of the page, index.html; a former page in it is replaced", identity=False
    )
    ledger: Path | None = setting(
        None, help="folder of submitted scores: alone with --out, pages of its tasks, data sets and methods"
    )
    submit: tuple[Path, ...] | None = setting(
        None, help="runs whose scores are added to --ledger, after a check of where they come from"
    )

    def __post_init__(self) -> None:
        """Check what may be asked together."""
        super().__post_init__()
        if not self.runs and self.ledger is None and self.submit is None:
            raise BadSetting(
                "report needs RUNS: one or several --out folders of earlier commands, with spaces between."
            )
        if self.submit is not None and (self.ledger is None or self.runs):
            raise BadSetting(
                "report --submit RUN needs --ledger DIR, the folder of the scores, and no other runs. "
                "Give several with commas: --submit RUN,RUN."
            )
        if self.ledger is not None and self.runs:
            raise BadSetting("report shows runs or a ledger. Give RUNS, or --ledger; --submit RUN adds a run to it.")
        if self.out is None and self.submit is None:
            raise BadSetting(
                "report needs --out, the folder of the page; `twofold report --help` explains every setting."
            )


def run(config: Config) -> Outcome:
    """Read the runs and write the page at once; the runs are only read."""
    told = [_submit(config.submit, config.ledger, config.out)] if config.submit and config.ledger else []
    if config.out is not None:
        told.append(_site_of(config.ledger, config.out) if config.ledger else _page_of(config.runs, config.out))
    facts: dict[str, Any] = {}
    for outcome in told:
        facts |= outcome.facts
    return Outcome(facts, "\n".join(outcome.text for outcome in told))


def _page_of(given: Sequence[Path], out: Path) -> Outcome:
    """One page about runs."""
    folders = _folders(given)
    parent = _parent(folders)
    shown = _boards.apart([_page.read(folder, parent) for folder in folders])
    _pages.check_out(out)
    page = _pages.write(out, {"index.html": _pages.render("report.html.j2", _content(shown))})
    return Outcome({"page": page, "runs": len(shown)}, f"A page about {_count(len(shown), 'run')}: {page}")


def _submit(given: Sequence[Path], ledger: Path, out: Path | None) -> Outcome:
    """Add the scores of runs to a ledger: all of them, or of none where one is refused."""
    if out is not None:
        _pages.check_out(out)
    folders = _folders(given)
    # Choosing has no score on test, and nothing of its own to submit: the runs of transfer go in together.
    folders = [f for f in folders if len(folders) == 1 or runs.read_config(f)["verb"] != "select"]
    for folder in folders:
        _ledger.checked(folder)
    new = [folder for folder in folders if _ledger.submit(folder, ledger)]
    known = len(folders) - len(new)
    told = f"{ledger}: {_count(len(new), 'run')} added" + (f", {known} known already" if known else "") + "."
    return Outcome({"ledger": str(ledger), "submitted": [str(folder) for folder in new]}, told)


def _site_of(ledger: Path, out: Path) -> Outcome:
    """The pages of a ledger."""
    shown = _boards.apart(_ledger.alone(_ledger.entries(ledger)))
    _pages.check_out(out)
    common = {"mark": _pages.MARK, "tasks": _boards.TASKS, "made": _made(shown), **BOARD_WORDS}
    texts = {}
    for page in _site.pages(shown):
        addresses = {run.name: f"{page.up}runs/{run.folder.stem}.html" for run in shown}
        texts[page.path] = _pages.render(
            "site.html.j2", {"page": page, "title": page.title, "addresses": addresses, **common}
        )
    for former in {*out.glob("*/*.html")} - {out / path for path in texts}:
        if _pages.MARK in former.read_text(encoding="utf-8", errors="replace"):
            former.unlink()
    first = _pages.write(out, texts)
    facts = {"page": first, "runs": len(shown), "pages": len(texts)}
    return Outcome(facts, f"{_count(len(texts), 'page')} about {_count(len(shown), 'submitted run')}: {first}")


def _folders(given: Sequence[Path]) -> list[Path]:
    """The runs, each once.

    Raises:
        BadRun: a folder does not exist, or holds runs instead of being one.
    """
    found = list({folder.resolve(): folder for run in given for folder in _inside(run)}.values())
    for folder in found:
        inside = sorted(path.parent.name for path in folder.glob("*/config.toml"))
        if inside and not (folder / "config.toml").exists():
            raise BadRun(f"{folder} is not a run, but holds some: {', '.join(inside)}. Give these: {folder}/*.")
    return found


def _inside(folder: Path) -> list[Path]:
    """A run itself; of a run of transfer those that it made."""
    if not (folder / "config.toml").exists() or runs.read_config(folder)["verb"] != "transfer":
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/*/*/config.toml"))
    if not found:
        raise BadRun(f"{folder} is a run of transfer that holds none yet. Run its command again.")
    return found


def _parent(folders: Sequence[Path]) -> Path:
    """The deepest folder that holds all runs."""
    return Path(os.path.commonpath([folder.resolve().parent for folder in folders]))


def _content(shown: Sequence[RunFolder]) -> dict[str, Any]:
    """All that the template shows.

    Raises:
        BadRun: none of the runs has something for the page.
    """
    by_verb = {verb: [r for r in shown if r.verb == verb] for verb in VERBS}
    standings = _standings.groups(shown)
    measured = _boards.measured(shown)
    boards = _boards.boards([*measured, *_boards.reported({entry.data for entry in measured})])
    if not boards and not standings and not any(by_verb.values()):
        told = ", ".join(f"{r.name} ({r.verb})" for r in shown)
        raise BadRun(f"Nothing to show in {told}. Give runs of {', '.join(VERBS[:-1])} or {VERBS[-1]}.")
    return {
        "title": _title(shown), "summary": _summary(by_verb["pretrain"], standings), "headlines": standings[:HEADLINES],
        "samples": [(r, _page.samples(r)) for r in by_verb["sample"]],
        "distances": [row for r in by_verb["fid"] for row in _page.distances(r)],
        "trainings": [(r, _page.training(r)) for r in by_verb["pretrain"]],
        "selections": [(r, _page.selection(r)) for r in by_verb["select"]],
        "similarities": [(r, _compared.similarity(r)) for r in by_verb["compare"]],
        "standings": [(group, _standings.chart(group)) for group in standings],
        "unscored": [r for r in by_verb["probe"] if not r.scores or r.finished is None],
        "commands": _commands(shown), "unfinished": [r for r in shown if r.finished is None],
        "made": _made(shown), "mark": _pages.MARK, "titles": _standings.BESIDE, "boards": boards,
        "addresses": {r.name: f"#run-{files.slug(r.name)}" for r in shown}, **BOARD_WORDS,
    }  # fmt: skip


def _title(shown: Sequence[RunFolder]) -> str:
    data = sorted({r.short(str(r.settings["data"])) for r in shown if "data" in r.settings})
    return f"Diffusion features on {_listed(data)}" if data else f"Runs {_listed([r.name for r in shown])}"


def _summary(trained: Sequence[RunFolder], standings: Sequence[Group]) -> list[str]:
    """The page in some sentences: what learned from what, and how it scores beside its controls."""
    return [*map(_told_training, trained[:HEADLINES]), *map(_told_scores, standings[:HEADLINES])]


def _told_training(run: RunFolder) -> str:
    facts = run.finished
    if facts is None:
        return f"The diffusion model {run.name} has not finished learning from {run.setting('data')}."
    return (
        f"The diffusion model {run.name} ({facts.get('parameters', 0) / 1e6:.1f} M parameters) saw "
        f"{facts.get('images', 0):,} images of {run.setting('data')} without their labels."
    )


def _told_scores(group: Group) -> str:
    """A group's best row, its head chosen on val, against its controls, whose heads are the best on test."""
    best, rivals = group.best, group.rivals
    interval = f" ({best.interval})" if best.interval else ""
    told = (
        f"On {group.data} with {group.labels}, {best.label} with a {best.head} head reaches {best.value}\u00a0% "
        f"{group.measure}{interval} on {best.score.n:,} test images"
    )
    if not rivals:
        return f"{told}; no control was measured beside it."
    against = _listed([f"{rival.value}\u00a0% from {rival.kind}" for rival in rivals])
    heads = (
        " (its head is the best on val, theirs the best on test)" if len({row.head for row in group.rows}) > 1 else ""
    )
    return f"{told}, against {against}{heads}; {_told_intervals(best, rivals)}."


def _told_intervals(best: Row, rivals: Sequence[Row]) -> str:
    """Whether chance alone might explain the distance between the best row and its controls."""
    close = [rival.kind for rival in rivals if not _standings.apart(best, rival)]
    if not close:
        return "the intervals do not overlap"
    return "the intervals overlap" if len(close) == len(rivals) else f"its interval overlaps with that of {close[0]}"


def _commands(shown: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Commands in the order in which they ran, one that made several runs once."""
    found: dict[str, dict[str, Any]] = {}
    for r in sorted(shown, key=lambda r: str(r.made.get("at", ""))):
        command = str(r.made.get("command", ""))
        when = str(r.made.get("at", ""))[:16].replace("T", " ")
        found.setdefault(command, {"text": command, "when": when, "runs": []})["runs"].append(r)
    return list(found.values())


def _made(shown: Sequence[RunFolder]) -> str:
    """When and with which versions the page and its runs were made."""
    versions: dict[str, list[str]] = {name: [] for name in runs.versions()}
    for name, seen in versions.items():
        seen.extend(sorted({str(r.made[name]) for r in shown if name in r.made}))
    told = ", ".join(f"{name} {' and '.join(seen)}" for name, seen in versions.items() if seen)
    days = sorted({str(r.made["at"])[:10] for r in shown if "at" in r.made})
    when = (
        f"runs of {days[0]}{f' to {days[-1]}' if len(days) > 1 else ''} with {told}" if days else "runs without a date"
    )
    return f"Page written on {time.strftime('%Y-%m-%d')} about {_count(len(shown), 'run')}; {when}."


def _listed(names: Sequence[str]) -> str:
    """Names as a person lists them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

"""Runs of several verbs in a row: each waits for what it needs, and one that fails never stops the others."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from twofold import files, registry, runs, settings
from twofold.errors import TwofoldError
from twofold.workflows import _recipes

log = logging.getLogger("twofold")

NOT_YET = "not made yet"
CHOSEN = {"block": int, "t": float | None, "pool": int}


@dataclass(frozen=True)
class Part:
    """One run that is to be made.

    Attributes:
        name: in its scale's file, and of its folder.
        verb: what makes it.
        values: its settings; what stands in braces is not yet put in.
        folder: where it is made.
        needs: names of runs that must be done before.
    """

    name: str
    verb: str
    values: Mapping[str, Any]
    folder: Path
    needs: tuple[str, ...]

    @property
    def module(self) -> ModuleType:
        """The verb's."""
        group, _, member = self.verb.partition(" ")
        if member:
            return registry.find(f"{group}s", member)
        return registry.find("workflows" if group in registry.names("workflows") else "steps", group)

    def config(self, known: Mapping[tuple[str, str], Any]) -> Any:
        """Its settings; those that a verb has not are not given to it."""
        kind = self.module.Config
        there = {field.name for field in fields(kind)}
        shared = {name: known[name, ""] for name in ("seed", "device", "precision") if name in there}
        values = {**shared, **_recipes.filled(self.values, known), "out": self.folder}
        return settings.build(kind, {n: v for n, v in values.items() if v is not None}, self.verb)


def parts(names: Sequence[str], scale: str, out: Path) -> list[Part]:
    """The runs of these names in their order, in folders of their names below `out`."""
    found = []
    for name in names:
        values = dict(_recipes.runs(scale)[name])
        needs = sorted({other for other, _ in _recipes.mentioned(values)} & set(names))
        found.append(Part(name, values.pop("verb"), values, out / name, tuple(needs)))
    return found


def check(planned: Sequence[Part], known: Mapping[tuple[str, str], Any]) -> None:
    """Fail before the first run, where the settings of one are wrong or its folder holds something else.

    What a run will have chosen is not known yet; block 1 stands in its place.
    """
    later = {(part.name, what): {"block": 1, "t": 0.0, "pool": 1}.get(what, part.folder) for part in planned
             for what in ("", *CHOSEN)}  # fmt: skip
    for part in planned:
        config = part.config({**later, **known})
        if not any(what for _, what in _recipes.mentioned(part.values)):
            runs.check_free(part.folder, part.verb, config)


def make(
    planned: Sequence[Part], known: dict[tuple[str, str], Any], tell: Callable[[Mapping[str, str]], None]
) -> dict[str, str]:
    """Make all runs that are not done; give the names of those that failed, and why in a line.

    A run that needs one that failed is not begun. The same command makes again what failed. Before every run `tell`
    gets what is not there, and why.
    """
    failed: dict[str, str] = {}
    for number, part in enumerate(planned, 1):
        tell(failed | dict.fromkeys((later.name for later in planned[number - 1 :]), NOT_YET))
        lacking = [name for name in part.needs if name in failed]
        if lacking:
            failed[part.name] = f"not begun, since {lacking[0]} failed"
            continue
        log.info("— %s/%s %s (%s)", number, len(planned), part.name, part.verb)
        if problem := _attempted(part, known):
            failed[part.name] = problem
            log.warning("%s failed and is left out: %s", part.name, problem)
    return failed


def _attempted(part: Part, known: dict[tuple[str, str], Any]) -> str:
    """Make one; what becomes of it is known to the others, or a failure is told in a line, whoever's fault it is."""
    begun = time.monotonic()
    try:
        outcome = part.module.run(part.config(known))
        told = outcome.text if "\n" not in outcome.text else f"{part.folder}: done"
        log.info("%s (%.0f s)", told, time.monotonic() - begun)
        known |= results_of(part)
        # A table some cells of which failed is there, and yet is to be tried again.
        return " ".join(outcome.problem.split())
    except Exception as error:
        told = " ".join(str(error).split())
        if isinstance(error, TwofoldError):
            return told
        log.info("where it failed:", exc_info=True)
        return f"{type(error).__name__}: {told}"


def results_of(part: Part) -> dict[tuple[str, str], Any]:
    """What others may ask of a run that is done: its folder, and what it chose."""
    choice = part.folder / "choice.json"
    chosen = files.read_json(choice, CHOSEN) if choice.is_file() else {}
    return {(part.name, ""): part.folder, **{(part.name, what): chosen[what] for what in CHOSEN if chosen}}


def command(part: Part, known: Mapping[tuple[str, str], Any], told: Callable[[Any], str] = str) -> str:
    """The run as a command line; what is not known yet stands in braces."""
    by_place = [field.name for field in fields(part.module.Config) if field.metadata["positional"]]
    values = {name: _part_known(value, known) for name, value in {**part.values, "out": part.folder}.items()}
    values = {name: value for name, value in values.items() if value is not None and value is not False}
    words = [_said(values[name], told) for name in by_place if name in values]
    for name, value in values.items():
        if name not in by_place:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [_said(value, told)])]
    return shlex.join(["twofold", *part.verb.split(), *words])


def _said(value: Any, told: Callable[[Any], str]) -> str:
    return ",".join(map(told, value)) if isinstance(value, list | tuple) else told(value)


def _part_known(value: Any, known: Mapping[tuple[str, str], Any]) -> Any:
    """As `_recipes.filled`, with braces left where nothing is known."""
    lacking = {one: "{" + ".".join(filter(None, one)) + "}" for one in _recipes.mentioned(value) if one not in known}
    return _recipes.filled(value, {**known, **lacking})

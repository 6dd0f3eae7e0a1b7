"""Recipes: one TOML file for every table and figure of the papers, and two with the runs that they are made of.

recipes/NAME.toml            question, source, expected result, published numbers, and the names of runs at each scale
recipes/scales/SCALE.toml    those runs: a verb and its settings, as a `--config` file has them

Recipes that name the same run share it. In a run's settings {model}, {data} ... are what `reproduce` was told, {NAME}
is the folder of another run, and {NAME.block}, {NAME.t}, {NAME.pool} are what that run of `select` chose.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from twofold import files, records
from twofold.errors import BadSetting, unknown

FOLDER = Path(__file__).parents[1] / "recipes"
SCALES = ("small", "paper")
NAMED = re.compile(r"{([\w-]+)(?:\.(\w+))?}")
Run = Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """One table or figure.

    Attributes:
        name: of its file.
        title, question, source, expected: in words.
        claims: numbers of the statements it bears on.
        small, paper: the names of its runs at each scale.
        optional: those that are left out where what they need is not given.
        curve: for a figure of accuracy over something: `over` what, and a published line `x`, `y`.
        published: what the papers have, in percent, by name.
    """

    name: str
    title: str
    question: str
    source: str
    expected: str
    claims: list[int] = field(default_factory=list)
    small: list[str] = field(default_factory=list)
    paper: list[str] = field(default_factory=list)
    optional: list[str] = field(default_factory=list)
    curve: dict[str, Any] = field(default_factory=dict)
    published: dict[str, float] = field(default_factory=dict)

    def runs(self, scale: str) -> list[str]:
        """Names of its runs."""
        found: list[str] = getattr(self, scale)
        return found


NEEDS = {"title": str, "question": str, "source": str, "expected": str}
MAY = {
    "claims": list[int], "small": list[str], "paper": list[str], "optional": list[str], "curve": dict,
    "published": dict,
}  # fmt: skip


def names() -> list[str]:
    """Every recipe, P1's before P2's."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


@cache
def load(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        UnknownName: there is none of this name.
    """
    if name not in names():
        raise unknown("recipe", name, [*names(), "all", "claims"], "`twofold reproduce` lists them.")
    content = _read(FOLDER / f"{name}.toml")
    with files.undamaged(FOLDER / f"{name}.toml", "Install twofold again."):
        records.check(content, NEEDS, MAY)
        return Recipe(name, **content)


@cache
def runs(scale: str) -> dict[str, Run]:
    """All runs of a scale by their names."""
    found: dict[str, Run] = _read(FOLDER / "scales" / f"{scale}.toml")
    return found


def mentioned(value: Any) -> set[tuple[str, str]]:
    """What stands in braces anywhere in settings: (name, what of it, or nothing)."""
    if isinstance(value, Mapping):
        return set().union(*map(mentioned, value.values()))
    if isinstance(value, list):
        return set().union(*map(mentioned, value))
    return {(found[1], found[2] or "") for found in NAMED.finditer(value)} if isinstance(value, str) else set()


def filled(value: Any, known: Mapping[tuple[str, str], Any]) -> Any:
    """Settings with what stands in braces put in; a value that is nothing but braces becomes what is known itself."""
    if isinstance(value, Mapping):
        return {name: filled(one, known) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, known) for one in value]
    if not isinstance(value, str):
        return value
    if whole := NAMED.fullmatch(value):
        return known[whole[1], whole[2] or ""]
    return NAMED.sub(lambda found: str(known[found[1], found[2] or ""]), value)


def ordered(wanted: list[str], scale: str, given: set[str]) -> list[str]:
    """The runs asked for and all that they need, each after what it needs; what is given is not made.

    Raises:
        BadSetting: a run needs something that this scale cannot make.
    """
    there, found = runs(scale), []  # type: dict[str, Run], list[str]

    def add(name: str, asked_by: str) -> None:
        if name in found or name in given:
            return
        if name not in there:
            flag = "other" if name.startswith("other_") else name.replace("_", "-")
            raise BadSetting(f"The run {asked_by} needs --{flag} at the scale {scale}. Give it.")
        for other, _ in sorted(mentioned(there[name])):
            add(other, name)
        found.append(name)

    for name in wanted:
        add(name, name)
    return found


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))

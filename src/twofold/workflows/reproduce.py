"""Reproduce tables, figures and claims of the papers: `reproduce` alone lists them; `all` and `claims` make many."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twofold import results
from twofold.backbones import base as backbones
from twofold.errors import BadSetting, TwofoldError
from twofold.records import Outcome
from twofold.settings import Settings, setting
from twofold.steps import _course, report
from twofold.workflows import _claims, _costs, _fitted, _given, _planned, _recipes, _reproduced
from twofold.workflows._fitted import Sized
from twofold.workflows._planned import Part
from twofold.workflows._recipes import Recipe

log = logging.getLogger("twofold")

MANY = ("all", "claims")
RIVALS = "rivals"  # the recipe that is ours


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold reproduce`."""

    recipe: str | None = setting(
        None,
        none="list them",
        positional=True,
        help="name of a recipe; all: every one; claims: statements, each with a verdict",
    )
    scale: str = setting(
        "small", help="small: own data in minutes; paper: the papers' networks and data", choices=_recipes.SCALES
    )
    data: str | None = setting(
        None, none="digits; at the scale paper it must be imagenet:DIR", help="data set to reproduce on"
    )
    other: str | None = setting(
        None, none="none, and claims 8, 9 and 11 are not tested",
        help="second data set, which the network of DATA is read on: other or finer classes",
    )  # fmt: skip
    model: str | None = setting(
        None, none="pretrain one on DATA; at the scale paper it must be given", help=backbones.MODEL_HELP
    )
    gan: Path | None = setting(
        None, none="train one, as long as --minutes allows", help="run of `twofold rival gan` to compare with"
    )
    contrastive: Path | None = setting(
        None, none="train one, as long as --minutes allows", help="run of `twofold rival contrastive` to compare with"
    )
    fine_grained: Path | None = setting(
        None, none="no such data", help="folder that holds aircraft, cars, cub, dogs, flowers and nabirds (scale paper)"
    )
    out: Path = setting(Path("reproduced"), help="folder that gets one run a step, and the page", identity=False)
    minutes: float | None = setting(
        None, none="12 on digits, else 60",
        help="about how long the papers' recipes may take at the scale small, beside pre-training; images, "
        "epochs, seeds and the rivals' budget are cut to fit where they are not given", least=1, most=10**6,
    )  # fmt: skip
    images: int = setting(100_000, help="length of pre-training, in images seen", least=1, most=10**12)
    size: int | None = setting(
        None, none="the data set's own", help="side of the images that a network is trained on, in pixels", least=4,
        most=8192,
    )  # fmt: skip
    num: int | None = setting(
        None, none="2000, or what --minutes allows", help="images to generate, where they are judged", least=2,
        most=10**7,
    )  # fmt: skip
    shots: int | None = setting(
        None, none="10 on digits, else all that --minutes allows", help="labels a class; 0: all", least=0, most=10**9
    )
    seeds: int | None = setting(
        None, none="3, or what --minutes allows", help="seeds of every score", least=1, most=10**4
    )
    epochs: int | None = setting(
        None, none="60, or what --minutes allows", help="passes over the images of what is trained through the network",
        least=1, most=10**6,
    )  # fmt: skip
    plan: bool = setting(False, help="tell what would be run and what it costs, and run nothing", identity=False)
    seed: int = setting(0, help="the first seed", least=0, most=2**63 - 1)
    device: str | None = setting(None, help="cpu, cuda, cuda:N or mps; none: a GPU where there is one", identity=False)
    precision: str = setting("auto", help="number format of the network", choices=backbones.PRECISIONS)


def run(config: Config) -> Outcome:
    """Make the runs of the recipes, then tables, figures, verdicts and a page; the same command goes on."""
    if config.recipe is None:
        return _listed()
    recipes = (
        [_recipes.load(name) for name in _recipes.names()] if config.recipe in MANY else [_recipes.load(config.recipe)]
    )
    given = _given.check(config)
    planned = _plan(config, recipes, given.known)
    if not planned:
        raise BadSetting(f"The recipe {config.recipe} has no runs at the scale {config.scale}. Give the other --scale.")
    if not config.plan:
        _reproduced.check_out(config.out)
    sized = _fitted.sized(config, given, _plan(replace(config, recipe="all"), _every(), given.known, quiet=True))
    _planned.check(planned, sized.known)
    costs = _costs.estimate(planned, sized.known, sized.meter)
    if config.plan:
        return _told_plan(recipes, planned, sized.known, costs)
    log.info("%s", _expected(planned, costs))
    sized.keep()
    started = time.monotonic()

    def told(lacking: Mapping[str, str]) -> None:
        _reproduced.write(config.out, recipes, config.scale, planned, sized.known, lacking, [], sized.words, draw=False)

    failed = _planned.make(planned, sized.known, told)
    return _concluded(config, recipes, planned, sized, failed, time.monotonic() - started)


def _every() -> list[Recipe]:
    """The papers' recipes, which --minutes is about."""
    return [_recipes.load(name) for name in _recipes.names() if name != RIVALS]


def _expected(planned: list[Part], costs: dict[str, _costs.Cost]) -> str:
    """How long it may take, in words."""
    about = _costs.total(costs)
    told = "not measured" if about is None else f"about {_costs.duration(about)} from nothing"
    return f"{len(planned)} runs, {told}; those that are there are not made again"


def _plan(
    config: Config, recipes: list[Recipe], known: dict[tuple[str, str], Any], *, quiet: bool = False
) -> list[Part]:
    """All runs, each once; of many recipes those whose data is not given are left out."""
    given = {name for name, _ in known}
    wanted: list[str] = []
    left: dict[str, list[str]] = {}
    of_claims = set().union(*(_claims.needed(number, config.scale) for number in _claims.CLAIMS))
    for recipe in recipes:
        # For verdicts alone, what no verdict asks for is not made.
        for name in (n for n in recipe.runs(config.scale) if config.recipe != "claims" or n in of_claims):
            try:
                wanted += _recipes.ordered([name], config.scale, given)
            except BadSetting as error:
                if config.recipe not in MANY and name not in recipe.optional:
                    raise
                left.setdefault(str(error).partition(" needs ")[2], []).append(name)
    for needs, names in left.items():
        if not quiet:
            log.info("left out: %s; it needs %s", ", ".join(dict.fromkeys(names)), needs)
    return _planned.parts(list(dict.fromkeys(wanted)), config.scale, config.out)


def _listed() -> Outcome:
    """Every recipe with its question."""
    found = [_recipes.load(name) for name in _recipes.names()]
    rows = [("recipe", "question", "claims"), *((r.name, r.question, " ".join(map(str, r.claims))) for r in found)]
    facts = {"recipes": [r.name for r in found]}
    more = "`twofold reproduce NAME` makes one, `all` every one, `claims` tells which statements of the papers hold."
    return Outcome(facts, f"{results.table(rows)}\n\n{more}")


def _told_plan(
    recipes: list[Recipe], planned: list[Part], known: dict[tuple[str, str], Any], costs: dict[str, _costs.Cost]
) -> Outcome:
    head = ("run", "forward passes", "TFLOP", "about", "of it heads")
    rows = [head, *(costs[p.name].row(p.name) for p in planned)]
    commands = [_planned.command(part, known) for part in planned]
    lines = [results.table(rows), "", _expected(planned, costs), "", *commands]
    facts = {
        "runs": {p.name: costs[p.name].record() for p in planned}, "recipes": [r.name for r in recipes],
        "seconds": _costs.total(costs),
    }  # fmt: skip
    return Outcome(facts, "\n".join(lines))


def _concluded(
    config: Config, recipes: list[Recipe], planned: list[Part], sized: Sized, failed: dict[str, str], seconds: float
) -> Outcome:
    """Tables, figures, verdicts and the page."""
    done = {part.name: part for part in planned if part.name not in failed}
    folders = _given.rivals(config) | {name: part.folder for name, part in done.items()}
    seen = _course.images_seen(config.model or str(config.out / "model"))
    verdicts = _claims.verdicts(folders, failed, seen, config.scale)
    wanted = {number for recipe in recipes for number in recipe.claims}
    verdicts = [verdict for verdict in verdicts if config.recipe in MANY or verdict.number in wanted]
    _reported(config.out / "report", [part.folder for part in done.values()])
    page = _reproduced.write(
        config.out, recipes, config.scale, planned, sized.known, failed, verdicts, sized.words, draw=True
    )
    facts = {
        "page": str(page), "seconds": round(seconds, 1), "failed": failed, "claims": [v.record() for v in verdicts],
    }  # fmt: skip
    told = f"{_claims.table(verdicts)}\n\nTook {seconds:.0f} s. Page: {page}"
    problem = ""
    if failed:
        first, why = next(iter(failed.items()))
        problem = (
            f"{len(failed)} of {len(planned)} runs failed; {first}: {why} Run the same command again to retry them."
        )
    return Outcome(facts, told, problem)


def _reported(out: Path, made: list[Path]) -> None:
    """The usual page about the runs; where it cannot be, the page of tables and claims stands without it."""
    try:
        if made:
            report.run(report.Config(tuple(made), out))
    except TwofoldError as error:
        log.warning("no page about the runs: %s", error)

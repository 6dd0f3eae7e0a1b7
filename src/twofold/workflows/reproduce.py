"""Reproduce tables, figures and claims of the papers: `reproduce` alone lists them; `all` and `claims` make many."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold import results
from twofold.backbones import base as backbones
from twofold.datasets import base as datasets
from twofold.errors import BadSetting
from twofold.records import Outcome
from twofold.settings import Settings, setting
from twofold.steps import _pages, report
from twofold.workflows import _claims, _costs, _planned, _recipes, _reproduced
from twofold.workflows._planned import Part
from twofold.workflows._recipes import Recipe

log = logging.getLogger("twofold")

MANY = ("all", "claims")
DIGITS = "digits"
PIXELS = 16  # the largest side at which images themselves are compared


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
    model: str | None = setting(
        None, none="pretrain one on DATA; at the scale paper it must be given", help=backbones.MODEL_HELP
    )
    fine_grained: Path | None = setting(
        None, none="no such data", help="folder that holds aircraft, cars, cub, dogs, flowers and nabirds (scale paper)"
    )
    out: Path = setting(Path("reproduced"), help="folder that gets one run a step, and the page", identity=False)
    images: int = setting(100_000, help="length of pre-training, in images seen", least=1, most=10**12)
    num: int = setting(2000, help="images to generate, where they are judged", least=2, most=10**7)
    shots: int | None = setting(None, none="10 on digits, else 0", help="labels a class; 0: all", least=0, most=10**9)
    seeds: int = setting(3, help="seeds of every score", least=1, most=10**4)
    epochs: int = setting(60, help="passes over the images of what is trained through the network", least=1, most=10**6)
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
    known = _known(config)
    planned = _plan(config, recipes, known)
    _planned.check(planned, known)
    costs = _costs.estimate(planned, known, measure=config.scale == "paper" or config.plan)
    if config.plan:
        return _told_plan(recipes, planned, known, costs)
    _pages.check_out(config.out / "report")
    started = time.monotonic()
    failed = _planned.make(planned, known)
    seconds = time.monotonic() - started
    return _concluded(config, recipes, planned, known, failed, seconds)


def _known(config: Config) -> dict[tuple[str, str], Any]:
    """What stands in the place of braces."""
    small = config.scale == "small"
    if not small and not (config.model and config.data):
        raise BadSetting(
            "reproduce --scale paper needs --model adm:FILE (OpenAI's 256x256_diffusion_uncond.pt) and --data "
            "imagenet:DIR."
        )
    data = config.data or DIGITS
    dataset = datasets.load(data)
    known = {
        "data": data, "imagenet": data.partition(":")[2], "fine_grained": config.fine_grained,
        "shots": (10 if data == DIGITS else 0) if config.shots is None else config.shots, "seeds": config.seeds,
        "images": config.images, "num": config.num, "epochs": config.epochs, "seed": config.seed,
        "device": config.device, "precision": None if config.precision == "auto" else config.precision,
        "augment": "none" if data == DIGITS else ("crop", "flip"),
        "pixels": f"pixels:{min(dataset.image_size or PIXELS, PIXELS)}",
    }  # fmt: skip
    if config.model is not None:
        backbones.load(config.model, device=config.device, precision=config.precision)
        known["model"] = config.model
    if not small and config.fine_grained is None:
        del known["fine_grained"]
    return {(name, ""): value for name, value in known.items()}


def _plan(config: Config, recipes: list[Recipe], known: dict[tuple[str, str], Any]) -> list[Part]:
    """All runs, each once; at the scale paper those whose data is not given are left out of `all`."""
    given = {name for name, _ in known}
    wanted: list[str] = []
    of_claims = set().union(*(claim.needs for claim in _claims.CLAIMS.values()))
    for recipe in recipes:
        # For verdicts alone, what no verdict asks for is not made.
        names = [name for name in recipe.runs(config.scale) if config.recipe != "claims" or name in of_claims]
        try:
            wanted += _recipes.ordered(names, config.scale, given)
        except BadSetting as error:
            if config.recipe not in MANY:
                raise
            log.warning("%s is left out: %s", recipe.name, error)
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
    rows = [("run", "forward passes", "TFLOP", "about"), *(costs[p.name].row(p.name) for p in planned)]
    lines = [results.table(rows), "", *(_planned.command(part, known) for part in planned)]
    facts = {"runs": {p.name: costs[p.name].record() for p in planned}, "recipes": [r.name for r in recipes]}
    return Outcome(facts, "\n".join(lines))


def _concluded(
    config: Config, recipes: list[Recipe], planned: list[Part], known: dict[tuple[str, str], Any],
    failed: dict[str, str], seconds: float,
) -> Outcome:  # fmt: skip
    """Tables, figures, verdicts and the page."""
    done = {part.name: part for part in planned if part.name not in failed}
    verdicts = _claims.verdicts({name: part.folder for name, part in done.items()})
    wanted = {number for recipe in recipes for number in recipe.claims}
    verdicts = [verdict for verdict in verdicts if config.recipe in MANY or verdict.number in wanted]
    page = _reproduced.write(config.out, recipes, config.scale, planned, known, failed, verdicts)
    made = [part.folder for part in done.values() if part.verb in ("pretrain", "select", "probe", "sample")]
    if made:
        report.run(report.Config(tuple(made), config.out / "report"))
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

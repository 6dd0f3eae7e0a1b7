"""The page of `reproduce`: for each recipe question, commands, measured beside published numbers, and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twofold import files, results, runs
from twofold.errors import BadRun, UserError
from twofold.plots import curves
from twofold.records import Score
from twofold.steps import _pages
from twofold.workflows import _evidence, _planned
from twofold.workflows._claims import Verdict
from twofold.workflows._planned import Part
from twofold.workflows._recipes import Recipe

BETA_FIRST, BETA_LAST, STEPS = 1e-4, 0.02, 1000  # of ADM's linear schedule
MARK = '<meta name="generator" content="twofold reproduce">'
MANY = 12  # rows of a table that is not folded away
PICTURES = ("cka*.svg", "bars.svg", "map.png")
AXES = {
    "sigma": "noise-to-signal ratio σ",
    "block": "block, as a share of the network's blocks",
    "pool": "side of the pool",
}


def check_out(out: Path) -> None:
    """Fail before any work where OUT is a run, or holds a page that is not ours.

    Raises:
        BadRun: it is, it does, or nothing may be written there.
    """
    _pages.check_out(out / "report")
    advice = "Give --out a new folder, or that of an earlier `twofold reproduce`."
    if (out / "config.toml").exists():
        raise BadRun(f"{out} is a run of `{runs.read_config(out)['verb']}`. {advice}")
    page = out / "index.html"
    if page.exists() and MARK not in page.read_text(encoding="utf-8", errors="replace"):
        raise BadRun(f"{page} was not written by `twofold reproduce`. {advice}")


def write(
    out: Path, recipes: Sequence[Recipe], scale: str, planned: Sequence[Part], known: Mapping[tuple[str, str], Any],
    failed: Mapping[str, str], verdicts: Sequence[Verdict], note: str, *, draw: bool,
) -> Path:  # fmt: skip
    """Write figures, `reproduced.json` and the page; give its path.

    Args:
        out: folder of all.
        recipes, scale: what is shown.
        planned, known: their runs, and what stands in braces.
        failed: runs that are not there, and why.
        verdicts: on claims.
        note: what was cut.
        draw: whether curves are drawn; where runs are still being made they wait.
    """
    out.mkdir(parents=True, exist_ok=True)
    parts = {part.name: part for part in planned}
    shown = [
        _section(out, recipe, scale, parts, known, failed, draw) for recipe in recipes if _made(recipe, scale, parts)
    ]
    files.write_json(
        out / "reproduced.json",
        {"recipes": shown, "claims": [v.record() for v in verdicts], "failed": dict(failed), "note": note},
    )
    page = out / "index.html"
    told = (
        (out / "report" / "index.html").read_text(encoding="utf-8") if (out / "report" / "index.html").is_file() else ""
    )
    anchors = {name: f"run-{files.slug(name)}" for name in parts}
    links = {name: f"report/index.html#{at}" for name, at in anchors.items() if f'id="{at}"' in told}
    content = {
        "sections": shown, "verdicts": verdicts, "failed": failed, "scale": scale, "note": note, "links": links,
        "report": bool(told), "many": MANY,
    }  # fmt: skip
    files.write_text(page, _pages.render("reproduced.html.j2", content))
    return page


def _made(recipe: Recipe, scale: str, parts: Mapping[str, Part]) -> bool:
    return any(name in parts for name in recipe.runs(scale))


def _section(
    out: Path, recipe: Recipe, scale: str, parts: Mapping[str, Part], known: Mapping[tuple[str, str], Any],
    failed: Mapping[str, str], draw: bool,
) -> dict[str, Any]:  # fmt: skip
    """One recipe as plain values."""
    names = [name for name in recipe.runs(scale) if name in parts]
    done = [parts[name] for name in names if name not in failed]
    figures = [name for name in (_figure(out, recipe, done) if draw else "",) if name] or _pictures(out, done)
    return {
        "name": recipe.name, "title": recipe.title, "question": recipe.question, "source": recipe.source,
        "expected": recipe.expected, "commands": [_planned.command(parts[name], known) for name in names],
        "measured": [row for part in done for row in _rows(part)], "published": recipe.published, "figures": figures,
        "failed": {name: failed[name] for name in names if name in failed},
    }  # fmt: skip


def _rows(part: Part) -> list[dict[str, Any]]:
    """A run's accuracies in percent, and similarities."""
    return [
        {
            "run": part.name, "what": _what(s), "n": s.n, "split": s.split,
            "value": results.percent(s) if s.name == "top1" else results.ends(s),
        }
        for s in results.read(part.folder)
        if s.name == "top1" or s.name.startswith(("cka_", "fd_", "fid"))
    ]  # fmt: skip


def _pictures(out: Path, done: Sequence[Part]) -> list[str]:
    """Figures that the runs themselves have drawn, as addresses from the page."""
    found = [path for part in done for name in PICTURES for path in sorted(part.folder.glob(name))]
    return [path.relative_to(out).as_posix() for path in found]


def _what(score: Score) -> str:
    about = score.about
    if score.name.startswith("f"):
        return score.name
    if score.name != "top1":
        steps = " against ".join("clean" if t is None else f"{t:g}" for t in about["steps"])
        told = f"{score.name.removeprefix('cka_')}, t = {steps}, pool {about['pool']}"
        return f"untrained, {told}" if about["control"] else told
    who = f"{about['row']}, " if about.get("control") else ""
    return f"{who}{about.get('head', '')}, {about.get('cell', '')}"


def _figure(out: Path, recipe: Recipe, done: Sequence[Part]) -> str:
    """The name of the recipe's figure, empty where it has none."""
    selected = [part.folder for part in done if part.verb == "select"]
    if not recipe.curve or not selected:
        return ""
    try:
        curve = _evidence.curve(selected[0], recipe.curve["over"])
    except UserError:
        return ""
    over = recipe.curve["over"]
    ours = [x / max(curve.x) for x in curve.x] if over == "block" else list(curve.x)
    errors = [100 * float(np.sqrt(max(y * (1 - y), 0) / curve.n)) * 1.96 for y in curve.y]
    theirs = [float(x) for x in recipe.curve["x"]]
    if over == "sigma":
        theirs = [noise_ratio(int(t)) for t in theirs]
    if over == "block":
        theirs = [x / recipe.curve["of"] for x in theirs]
    name = f"{recipe.name}.svg"
    for path in (out / name, out / f"{recipe.name}.png"):
        curves.measured_beside_published(
            (ours, [100 * y for y in curve.y], errors, f"measured, {curve.n} val images"),
            (theirs, recipe.curve["y"], f"published: {recipe.curve['published']}"),
            AXES[over], path, logarithmic=over != "block",
        )  # fmt: skip
    return name


def noise_ratio(t: int) -> float:
    """Sigma of ADM's step t: sqrt((1 - abar_t) / abar_t) of the linear schedule."""
    kept = float(np.prod(1 - np.linspace(BETA_FIRST, BETA_LAST, STEPS)[: t + 1]))
    return float(np.sqrt((1 - kept) / kept))

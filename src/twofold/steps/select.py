"""Choose block, noise step and pooling on val with a ridge probe; test stays sealed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold import files, results, runs
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset
from twofold.errors import BadSetting
from twofold.heads import base as heads
from twofold.plots import heatmaps
from twofold.records import Cell, Outcome, Score, number_text
from twofold.runs import Run
from twofold.settings import setting
from twofold.steps import _adaptive, _cells, _fill, _judging, _labels, _memory, _shots, _spread
from twofold.steps._adaptive import Found, Plan
from twofold.steps._judging import Judge
from twofold.store import Store

log = logging.getLogger("twofold")

SEALED = ("test",)


@dataclass(frozen=True)
class Config(_fill.Reading):
    """Settings of `twofold select`."""

    model: str = setting(help=backbones.MODEL_HELP)
    data: str = setting(help="data set to choose on: its train and val splits")
    out: Path = setting(help="folder of the run: map.jsonl, map.png, choice.json", identity=False)
    blocks: tuple[str, ...] = setting(("all",), help="block numbers or names, or all; see twofold blocks", alone="all")
    t: tuple[float, ...] | None = setting(None, help="noise steps in the model's own unit; none: a ladder of sigmas")
    sigma: tuple[float, ...] | None = setting(None, help="noise-to-signal ratios instead of --t")
    pool: tuple[int, ...] = setting((1, 2), help="sides of the grid that maps are averaged to", least=1, most=8192)
    head: str = setting("ridge", help="head that judges a cell")
    shots: int = setting(
        0, help="labels a class of train to learn from, judged on all of val; 0: all", least=0, most=10**9
    )
    trials: int = setting(5, help="draws of the shots that are averaged, where --shots is given", least=1, most=10**4)
    search: str = setting(
        "grid",
        help="grid judges every cell; adaptive seeks the noise step on a part of the rows and reads the best whole, "
        "for a quarter of the grid's forward passes",
        choices=("grid", "adaptive"),
    )
    features: str | None = setting(None, help="folder or address of the store; none: OUT/features", identity=False)
    memory: float | None = _memory.setting()


def run(config: Config) -> Outcome:
    """Score cells on val, write the map and the choice; goes on where it stopped."""
    _spread.check(config)
    dataset = datasets.load(config.data, sealed=SEALED, on_error=config.on_error)
    if heads.load(config.head).maps:
        raise BadSetting(f"--head {config.head} reads maps, and a cell is judged on pooled rows. Select with ridge.")
    backbone = config.load(config.model)
    wanted = _cells.asked(backbone, config.blocks, _cells.steps(backbone, config.t, config.sigma), config.pool)
    _labels.check(dataset)
    if config.shots:
        _shots.check(dataset, config.shots)
    judge = Judge(config.head, config.shots, config.trials, config.seed, _memory.bytes_for(config.memory))
    planned = _adaptive.plan(judge, backbone, dataset, wanted, config.seed) if config.search == "adaptive" else None
    inputs = {"model": backbone.fingerprint, "data": dataset.fingerprint}
    with runs.opened(config.out, "select", config, inputs) as run_:
        if done := run_.again(_told):
            return done
        dataset.tell_skipped()
        found = _found(config, run_, judge, planned, backbone, dataset, wanted)
        facts = _conclude(config, run_, backbone, dataset, wanted, found)
        run_.finish(facts)
    return Outcome(facts, f"{config.out}: {_told(facts)}")


def _found(
    config: Config, run_: Run, judge: Judge, planned: Plan | None, backbone: Backbone, dataset: Dataset,
    wanted: Sequence[Cell],
) -> Found:  # fmt: skip
    """The records of the whole grid, or of what an adaptive search read of it."""

    def opened(name: str, data: Dataset) -> Store:
        where = config.features or str(config.out / "features")
        if name:
            where = f"{where.rstrip('/')}-{name}"
        return _fill.open_store(where, backbone, data, config, sealed=SEALED)

    if planned is not None:
        return _adaptive.search(judge, planned, run_.folder, opened, backbone, dataset, wanted, config)
    table = opened("", dataset)
    _spread.fill(table, backbone, dataset, ("train", "val"), wanted, config)
    judged = _judging.records(run_.folder / "map.jsonl", wanted, lambda cell: judge.on_val(table, cell))
    passes = len({cell.tap.t for cell in wanted}) * sum(len(dataset.build(split)) for split in ("train", "val"))
    return Found(judged, [], passes, passes)


def _conclude(
    config: Config, run_: Run, backbone: Backbone, dataset: Dataset, wanted: Sequence[Cell], found: Found
) -> dict[str, Any]:
    """Write the choice, its score and the picture."""
    best = choose(found.judged)
    choice = {
        **best, "model": config.model, "backbone": backbone.identity, "data": config.data, "shots": config.shots,
        "features": str(config.features or config.out / "features"), **dataset.provenance,
    }  # fmt: skip
    files.write_json(run_.folder / "choice.json", choice)
    about = {
        "model": config.model, "data": config.data, "head": config.head, "cell": best["cell"], "shots": config.shots,
        "search": config.search, "passes": found.passes, **dataset.provenance,
    }  # fmt: skip
    (run_.folder / "results.jsonl").unlink(missing_ok=True)
    results.append(run_.folder, [Score("top1", best["accuracy"], "val", best["n"], (config.seed,), about=about)])
    _draw(config, backbone, wanted, found, best, run_.folder / "map.png")
    # The score of the chosen cell on val is too high by the choosing itself; only a probe on test is a result.
    return {
        **choice, "cells": len(found.judged), "of": len(wanted), "passes": found.passes,
        "grid_passes": found.grid_passes, "map": str(run_.folder / "map.png"),
    }  # fmt: skip


def choose(judged: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The record with the best accuracy on val; ties go to the lower loss, then to the cheaper cell."""
    return max(judged, key=lambda r: (round(r["accuracy"], 9), -round(r["loss"], 9), -r["share"], -r["pool"]))


def _draw(
    config: Config, backbone: Backbone, wanted: Sequence[Cell], found: Found, best: dict[str, Any], out: Path
) -> None:
    """The map of the grid; what was not judged stays empty, what was only looked at has a pale number."""
    blocks = sorted({cell.tap.block for cell in wanted})
    steps = sorted({cell.tap.t for cell in wanted}, key=lambda t: -1 if t is None else t)
    pools = sorted({cell.pool for cell in wanted})

    def panels(records: Sequence[dict[str, Any]]) -> dict[str, NDArray[np.float64]]:
        shown = {f"pool {p}": np.full((len(blocks), len(steps)), np.nan) for p in pools}
        for r in records:
            shown[f"pool {r['pool']}"][blocks.index(r["block"]), steps.index(r["t"])] = r["accuracy"]
        return shown

    names = [f"{b}  {backbone.block(b).name}" for b in blocks]
    labels = ["clean" if t is None else f"{number_text(t)}\n{backbone.sigma(t):.2g}" for t in steps]
    ring = (f"pool {best['pool']}", blocks.index(best["block"]), steps.index(best["t"]))
    few = f", {config.shots} labels a class" if config.shots else ""
    title = f"{config.head} probe on val of {config.data}{few}"
    if found.looked:
        title += "\nhatched: not judged; pale numbers: looked at on a part of the rows"
    heatmaps.selection_map(panels(found.judged), names, labels, ring, title, out, looked=panels(found.looked))


def _told(facts: dict[str, Any]) -> str:
    noise = "" if facts["t"] is None else f", t = {number_text(facts['t'])} (σ = {facts['sigma']:.2g})"
    told = (
        f"block {facts['block']} ({facts['name']}){noise}, pool {facts['pool']}: {100 * facts['accuracy']:.1f} % of "
        f"{facts['n']} val images, the best of {facts['cells']} cells"
    )
    if facts.get("passes", 0) == facts.get("grid_passes", 0):
        return f"{told}."
    share = facts["passes"] / facts["grid_passes"]
    return f"{told} that were judged of {facts['of']}, with {100 * share:.0f} % of the grid's forward passes."

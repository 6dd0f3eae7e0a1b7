"""Choose block, noise step and pooling on val with a ridge probe; test stays sealed."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twofold import files, plots, results, runs
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset
from twofold.errors import BadRun
from twofold.heads import base as heads
from twofold.records import Cell, Number, Outcome, Score, Tap, number_text
from twofold.runs import Run
from twofold.settings import setting
from twofold.steps import _fill, _shots, _spread
from twofold.store import Store

log = logging.getLogger("twofold")

SEALED = ("test",)

# A line of map.jsonl.
JUDGED = {
    "cell": str, "block": int, "name": str, "t": Number | None, "sigma": Number | None, "pool": int,
    "share": Number, "accuracy": Number, "loss": Number, "n": int,
}  # fmt: skip


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
    features: str | None = setting(None, help="folder or address of the store; none: OUT/features", identity=False)


def run(config: Config) -> Outcome:
    """Score every cell on val, write the whole map and the choice; goes on where it stopped."""
    _spread.check(config)
    heads.load(config.head)
    dataset = datasets.load(config.data, sealed=SEALED, on_error=config.on_error)
    datasets.check_classes(dataset)
    backbone = config.load(config.model)
    wanted = _fill.cells(backbone, config.blocks, _fill.steps(backbone, config.t, config.sigma), config.pool)
    if config.shots:
        _shots.draw(dataset.build("train").labels, config.shots, config.seed)
    inputs = {"model": backbone.fingerprint, "data": dataset.fingerprint}
    with runs.opened(config.out, "select", config, inputs) as run_:
        if done := run_.again(_told):
            return done
        dataset.tell_skipped()
        table = _fill.open_store(
            config.features or str(config.out / "features"), backbone, dataset, config, sealed=SEALED
        )
        _spread.fill(table, backbone, dataset, ("train", "val"), wanted, config)
        judged = _judge_all(config, run_, table, wanted)
        facts = _conclude(config, run_, backbone, dataset, table, judged)
        run_.finish(facts)
    return Outcome(facts, f"{config.out}: {_told(facts)}")


def _judge_all(config: Config, run_: Run, table: Store, wanted: Sequence[Cell]) -> list[dict[str, Any]]:
    """One record a cell, in map.jsonl; cells that are there already are not judged again."""
    path = run_.folder / "map.jsonl"
    known = {record["cell"]: record for record in files.read_lines(path, JUDGED)}
    for record in known.values():
        _check_judged(path, record)
    todo = [cell for cell in wanted if str(cell) not in known]
    with runs.progress(len(wanted), "judge", done=len(wanted) - len(todo), unit="cells") as bar:
        for cell in todo:
            record = _judge(config, table, cell)
            files.append_lines(path, [record])
            known[str(cell)] = record
            bar.advance(1, f"{cell} {100 * record['accuracy']:.1f} %")
    return [known[str(cell)] for cell in wanted]


def _check_judged(path: Path, record: dict[str, Any]) -> None:
    """Refuse a line whose parts contradict each other."""
    t, told = record["t"], str(Cell(Tap(record["block"], record["t"]), record["pool"]))
    if told != record["cell"] or (t is None) != (record["sigma"] is None) or not math.isfinite(record["accuracy"]):
        raise BadRun(f"{path} is damaged at {record['cell']}. Delete that line and run the same command again.")


def _judge(config: Config, table: Store, cell: Cell) -> dict[str, Any]:
    """Accuracy and loss on val of a head fitted on train, with all labels or the mean over draws of few."""
    train, val = table.read("train", cell), table.read("val", cell)
    trials = range(config.trials) if config.shots else range(1)
    found = []
    for trial in trials:
        rows = _shots.draw(train.y, config.shots, config.seed + trial) if config.shots else slice(None)
        head = heads.load(config.head).fit(train.x[rows], train.y[rows], val=(val.x, val.y))
        scores = head.scores(val.x)
        right = head.classes_[scores.argmax(1)] == val.y
        found.append((right.mean(), head.loss(scores, val.y)))
    accuracy, loss = np.mean(found, 0)
    about = table.about_cell("val", cell)
    return {"cell": str(cell), **about, "accuracy": float(accuracy), "loss": float(loss), "n": len(val.y)}


def _conclude(
    config: Config, run_: Run, backbone: Backbone, dataset: Dataset, table: Store, judged: list[dict[str, Any]]
) -> dict[str, Any]:
    """Write the choice, its score and the picture."""
    best = choose(judged)
    choice = {
        **best,
        "model": config.model,
        "backbone": backbone.identity,
        "data": config.data,
        "shots": config.shots,
        "features": str(table.place),
        **dataset.provenance,
    }
    files.write_json(run_.folder / "choice.json", choice)
    about = {
        "model": config.model,
        "data": config.data,
        "head": config.head,
        "cell": best["cell"],
        "shots": config.shots,
        **dataset.provenance,
    }
    (run_.folder / "results.jsonl").unlink(missing_ok=True)
    results.append(run_.folder, [Score("top1", best["accuracy"], "val", best["n"], (config.seed,), about=about)])
    _draw(config, backbone, judged, best, run_.folder / "map.png")
    # The score of the chosen cell on val is too high by the choosing itself; only a probe on test is a result.
    return {**choice, "cells": len(judged), "map": str(run_.folder / "map.png")}


def choose(judged: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The record with the best accuracy on val; ties go to the lower loss, then to the cheaper cell."""
    return max(judged, key=lambda r: (round(r["accuracy"], 9), -round(r["loss"], 9), -r["share"], -r["pool"]))


def _draw(config: Config, backbone: Backbone, judged: list[dict[str, Any]], best: dict[str, Any], out: Path) -> None:
    blocks = sorted({r["block"] for r in judged})
    steps = sorted({r["t"] for r in judged}, key=lambda t: -1 if t is None else t)
    pools = sorted({r["pool"] for r in judged})
    panels = {f"pool {p}": np.full((len(blocks), len(steps)), np.nan) for p in pools}
    for r in judged:
        panels[f"pool {r['pool']}"][blocks.index(r["block"]), steps.index(r["t"])] = r["accuracy"]
    names = [f"{b}  {backbone.block(b).name}" for b in blocks]
    labels = ["clean" if t is None else f"{number_text(t)}\n{backbone.sigma(t):.2g}" for t in steps]
    ring = (f"pool {best['pool']}", blocks.index(best["block"]), steps.index(best["t"]))
    few = f", {config.shots} labels a class" if config.shots else ""
    plots.selection_map(panels, names, labels, ring, f"{config.head} probe on val of {config.data}{few}", out)


def _told(facts: dict[str, Any]) -> str:
    noise = "" if facts["t"] is None else f", t = {number_text(facts['t'])} (σ = {facts['sigma']:.2g})"
    return (
        f"block {facts['block']} ({facts['name']}){noise}, pool {facts['pool']}: {100 * facts['accuracy']:.1f} % of "
        f"{facts['n']} val images, the best of {facts['cells']} cells."
    )

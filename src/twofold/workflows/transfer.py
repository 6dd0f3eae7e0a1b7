"""Compare models over data sets and heads: where to read is chosen on each data set's val, test is opened once."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from twofold import files, runs
from twofold.backbones import base as backbones
from twofold.backbones.base import DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.errors import BadSetting, TwofoldError, UserError
from twofold.heads import base as heads
from twofold.records import Outcome
from twofold.settings import borrowed, setting
from twofold.steps import _fill, _names, _spread, _tables, probe, select
from twofold.workflows import _transferred
from twofold.workflows._transferred import Cell

log = logging.getLogger("twofold")

READING = tuple(field.name for field in fields(_fill.Reading))
SELECTING = ("blocks", "pool", "search", "shots", "trials", "memory")
PROBING = ("shots", "seeds", "controls", "memory")


@dataclass(frozen=True)
class Config(_fill.Reading):
    """Settings of `twofold transfer`."""

    models: tuple[str, ...] = setting(help="networks to compare, each as --model of other verbs has it")
    data: tuple[str, ...] = setting(help="data sets to compare them on")
    out: Path = setting(
        help="folder of the table (table.csv, .jsonl, .md, .tex), its picture (bars.png, .svg) and a run a cell",
        identity=False,
    )
    head: tuple[str, ...] = setting(("logistic",), help="heads to train, each in a run of its own")
    blocks: tuple[str, ...] = borrowed(select.Config, "blocks")
    t: tuple[float, ...] | None = setting(
        None, help="noise steps to choose from, in each diffusion model's own unit; none: a ladder of sigmas"
    )
    sigma: tuple[float, ...] | None = setting(
        None, help="noise-to-signal ratios instead of --t, the same scale for every diffusion model"
    )
    pool: tuple[int, ...] = borrowed(select.Config, "pool")
    search: str = borrowed(select.Config, "search")
    judge: str = setting("ridge", help="head that judges where to read, on val")
    shots: int = setting(
        0, help="labels a class that heads learn from, when judging and on test; 0: all", least=0, most=10**9
    )
    trials: int = borrowed(select.Config, "trials")
    seeds: int = borrowed(probe.Config, "seeds")
    controls: tuple[str, ...] = borrowed(probe.Config, "controls")
    memory: float | None = borrowed(probe.Config, "memory")


@dataclass(frozen=True)
class Source:
    """A model or a data set of the table.

    Attributes:
        name: as it was given.
        label: what tables and pictures call it.
        problem: why it cannot be read, in a line; empty where it can.
        identity: of a model, for the store of its features.
        noisy: whether a model reads noised images.
        side: of raw pixels, which are read whole; 0 of other models.
    """

    name: str
    label: str
    problem: str = ""
    identity: str = ""
    noisy: bool = False
    side: int = 0

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return files.slug(self.name)


def run(config: Config) -> Outcome:
    """Fill the table cell by cell; the same command goes on, and tries again what failed."""
    _check(config)
    runs.check_free(config.out, "transfer", config)
    done_already = (config.out / "finished.json").exists()
    models = [] if done_already else _sources(config.models, config, _model)
    data = [] if done_already else _sources(config.data, config, _data)
    with runs.opened(config.out, "transfer", config) as run_:
        if done := run_.again(lambda facts: f"\n{facts['text']}"):
            return done
        cells = _fill_table(config, models, data)
        facts = {"text": _transferred.text(cells), "scores": [s.record() for cell in cells for s in cell.scores]}
        failed = [cell for cell in cells if cell.problem]
        facts |= {"failed": [cell.told for cell in failed], **_transferred.written(config.out)}
        if not failed:
            run_.finish(facts)
    problem = f"{len(failed)} of {len(cells)} cells failed: {failed[0].told}" if failed else ""
    again = " Mend it, then run the same command again: it tries only these." if failed else ""
    return Outcome(facts, f"{facts['text']}\n\nTable: {facts['table']}", problem + again)


def _check(config: Config) -> None:
    """Refuse at once what no cell could be made with."""
    if runs.processes() > 1:
        raise BadSetting("transfer is of one process. Run it without a launcher; --workers fills stores with several.")
    _spread.check(config)
    for head in (*config.head, config.judge):
        heads.load(head)
    for model in config.models:
        backbones.parse(model)
    if config.t is not None and config.sigma is not None:
        raise BadSetting("Both --t and --sigma are given; they say the same thing. Give one of them.")


def _sources(names: Sequence[str], config: Config, load: Callable[[Config, str], dict[str, Any]]) -> list[Source]:
    """All models or data sets; one that cannot be read is told at once, and its cells are marked.

    Raises:
        UserError: none of them can be read.
    """
    found = []
    for name, label in zip(names, _labels(names, config.out.resolve().parent), strict=True):
        try:
            found.append(Source(name, label, **load(config, name)))
        except Exception as error:
            found.append(Source(name, label, problem=_one_line(error)))
            log.warning("%s", found[-1].problem)
    if all(source.problem for source in found):
        raise UserError(found[0].problem)
    return found


def _labels(names: Sequence[str], parent: Path) -> Sequence[str]:
    """The shortest names that tell all apart: without the files of weights, without folders, or as they were given."""
    short = [_names.short(name, parent) for name in names]
    bare = [re.sub("@[^?]*", "", name) for name in short]
    return next((found for found in (bare, short) if len(set(found)) == len(found)), names)


def _model(config: Config, name: str) -> dict[str, Any]:
    backbone = config.load(name)
    side = backbone.image_size if backbones.parse(name).scheme == "pixels" else 0
    return {"identity": backbone.identity, "noisy": isinstance(backbone, DiffusionBackbone), "side": side}


def _data(config: Config, name: str) -> dict[str, Any]:
    datasets.load(name, on_error=config.on_error)
    return {}


def _fill_table(config: Config, models: Sequence[Source], data: Sequence[Source]) -> list[Cell]:
    """Every cell in order; the table on disk is that of all so far, whatever stops it."""
    cells = {
        (d.name, m.name, head): _transferred.begun(d.label, m.label, head, config.out / d.folder / m.folder)
        for d in data for m in models for head in config.head
    }  # fmt: skip
    for d in data:
        for m in models:
            log.info("— %s on %s", m.label, d.label)
            for head, problem in _row(config, m, d):
                cell = cells[d.name, m.name, head] = cells[d.name, m.name, head].ended(problem)
                if problem:
                    log.warning("failed, and tried again by the same command: %s", cell.told)
                _transferred.write(config.out, list(cells.values()))
    _transferred.draw(config.out, list(cells.values()))
    return list(cells.values())


def _row(config: Config, model: Source, data: Source) -> Iterator[tuple[str, str]]:
    """What became of every head on a model and data set: its name, and why it failed, if it did."""
    problem = model.problem or data.problem or _attempt(lambda: select.run(_selection(config, model, data)))
    for head in config.head:
        yield head, problem or _attempt(lambda head=head: probe.run(_test(config, model, data, head)))  # type: ignore[misc]


def _attempt(work: Callable[[], Outcome]) -> str:
    """Do it; a failure is told in a line, whoever's fault it is, and where in the log."""
    try:
        told = work().text
        if "\n" not in told:  # a test tells its scores while it runs
            log.info("%s", told)
    except Exception as error:
        if not isinstance(error, TwofoldError):
            log.info("where it failed:", exc_info=True)
        return _one_line(error)
    return ""


def _one_line(error: Exception) -> str:
    told = " ".join(str(error).split())
    return told if isinstance(error, TwofoldError) else f"{type(error).__name__}: {told}"


def _selection(config: Config, model: Source, data: Source) -> select.Config:
    """Where to read: into the store that the tests go on with, where its features are the same."""
    shared: dict[str, Any] = _some(config, READING) | _some(config, SELECTING)
    if model.noisy:
        shared |= {"t": config.t, "sigma": config.sigma}
    if model.side:
        shared |= {"blocks": ("all",), "pool": (model.side,)}
    seed = config.seed if model.noisy else None
    # A test reads clean images with a key of its own: no seed, one draw, no label.
    same = model.noisy or (config.seed, config.draws, config.label) == (0, 1, None)
    features = _tables.address(_features(config, data), model.identity, seed) if same else None
    out = config.out / data.folder / model.folder / "select"
    return select.Config(model.name, data.name, out, head=config.judge, features=features, **shared)


def _test(config: Config, model: Source, data: Source, head: str) -> probe.Config:
    """One cell: a head where `select` chose to read, beside its controls."""
    shared: dict[str, Any] = _some(config, READING) | _some(config, PROBING)
    folder = config.out / data.folder / model.folder
    shared |= {"choice": folder / "select", "features": _features(config, data)}
    return probe.Config(model.name, data.name, folder / files.slug(head), head=(head,), **shared)


def _features(config: Config, data: Source) -> str:
    """Where the features of a data set lie, of all models."""
    return str(config.out / "features" / data.folder)


def _some(config: Config, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}

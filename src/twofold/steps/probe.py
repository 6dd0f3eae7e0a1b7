"""Train a head on frozen features and score it on test, beside its controls."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold import files, results, runs
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset
from twofold.errors import BadRun, BadSetting
from twofold.heads import base as heads
from twofold.heads.base import Head
from twofold.records import Cell, Number, Outcome, Score, Tap
from twofold.runs import Run
from twofold.settings import setting
from twofold.steps import _fill, _shots, _views
from twofold.store import Table

log = logging.getLogger("twofold")

# What must stand in the choice.json of a run of select.
CHOICE = {"model": str, "backbone": str, "data": str, "cell": str, "block": int, "t": Number | None, "pool": int}
SELECT_AGAIN = "Delete its folder and run `twofold select` again."
CONTROLS = ("pixels", "untrained", "none")


@dataclass(frozen=True)
class Config(_fill.Reading):
    """Settings of `twofold probe`."""

    model: str = setting(help=backbones.MODEL_HELP)
    data: str = setting(help="data set to classify")
    out: Path = setting(help="folder of the run: results.jsonl", identity=False)
    choice: Path | None = setting(None, help="run of twofold select whose block, t and pool are taken")
    block: str | None = setting(None, help="block number or name, instead of --choice")
    t: float | None = setting(None, help="noise step in the model's own unit, with --block")
    sigma: float | None = setting(None, help="noise-to-signal ratio instead of --t")
    pool: int | None = setting(
        None,
        help="side of the grid that maps are averaged to, with --block; 0 keeps maps, for heads that read "
        "them; none: what the head reads",
        least=0,
        most=8192,
    )
    head: tuple[str, ...] = setting(("logistic",), help="heads to train")
    shots: int = setting(
        0, help="labels a class to learn from, and as many of val for its strength; 0: all", least=0, most=10**9
    )
    seeds: int = setting(1, help="how many seeds (of noise and of shots) are averaged", least=1, most=10**4)
    views: tuple[str, ...] | None = setting(None, help=_views.HELP, none="none")
    controls: tuple[str, ...] = setting(
        ("pixels", "untrained"), help="rows to compare with; none for none", choices=CONTROLS, alone="none"
    )
    features: Path | None = setting(None, help="folder for the stores; none: OUT/features", identity=False)


@dataclass(frozen=True)
class Row:
    """One line of the table to be: a backbone, where it is read, and what it is called."""

    name: str
    backbone: Backbone
    cell: Cell
    control: bool


def run(config: Config) -> Outcome:
    """Fit on train, choose strengths on val, open test once; a second run tells the same again."""
    maps = _maps(config)
    _views.splits(config.views)
    dataset = datasets.load(config.data, on_error=config.on_error)
    datasets.check_classes(dataset)
    _check_shots(config, dataset)
    rows = list(_rows(config, dataset, maps))
    with runs.opened(config.out, "probe", config, _inputs(config, dataset, rows[0])) as run_:
        if run_.finished is None:
            dataset.tell_skipped()
            _score_all(config, run_, dataset, rows)
            run_.finish({"scores": [s.record() for s in _scores(run_)]})
        scores = _scores(run_)
    return Outcome({"scores": [s.record() for s in scores]}, _table(scores))


def _maps(config: Config) -> bool:
    """Whether the heads read maps; they share one table, so all do or none does."""
    reads = {name: heads.load(name).maps for name in config.head}
    if len(set(reads.values())) > 1:
        of_maps = ", ".join(name for name, maps in reads.items() if maps)
        raise BadSetting(f"{of_maps} reads maps, the other heads pooled rows. Probe them in two runs.")
    maps = any(reads.values())
    if config.pool is not None and maps is not (config.pool == 0):
        what = "maps: give --pool 0, or leave --pool out" if maps else "pooled rows: give --pool 1 or more"
        raise BadSetting(f"The head {config.head[0]} reads {what}.")
    return maps


def _inputs(config: Config, dataset: Dataset, row: Row) -> dict[str, str]:
    """What the scores are made from: of a choice it is the cell that counts, not the file it stands in."""
    made_from = {"model": row.backbone.fingerprint, "data": dataset.fingerprint}
    return made_from if config.choice is None else {**made_from, "choice": str(row.cell)}


def _scores(run_: Run) -> list[Score]:
    """The scores so far, which say where they belong in the table."""
    return results.read(run_.folder, {"row": str, "head": str, "block": str, "t": Number | None, "pool": int})


def _score_all(config: Config, run_: Run, dataset: Dataset, rows: list[Row]) -> None:
    """Append the scores of every row and head that results.jsonl lacks."""
    known = {(s.about["row"], s.about["head"]) for s in _scores(run_)}
    for row in rows:
        for head in config.head:
            if (row.name, head) not in known:
                score = _score(config, dataset, row, head)
                results.append(run_.folder, [score])
                log.info("%s, %s: %s %%", row.name, head, results.percent(score))


def _score(config: Config, dataset: Dataset, row: Row, head: str) -> Score:
    """Accuracy on test, averaged over seeds, with a bootstrap interval over images and seeds."""
    seeds = range(config.seed, config.seed + config.seeds)
    trials = [_trial(_tables(config, dataset, row, seed), head, config.shots, seed) for seed in seeds]
    if not row.control:
        _keep(config, dataset, row, head, trials[0])
    per_seed = np.stack([trial.right for trial in trials])
    low, high = results.bootstrap_interval(per_seed)
    about = {
        "row": row.name, "control": row.control, "model": row.backbone.name, "data": config.data, "head": head,
        "shots": config.shots, "views": list(_views.splits(config.views)), "cell": str(row.cell),
        "block": row.backbone.block(row.cell.tap.block).name,
        "t": row.cell.tap.t, "sigma": row.backbone.sigma(row.cell.tap.t), "pool": row.cell.pool,
        "chosen": [trial.choice for trial in trials], "per_seed": [float(r.mean()) for r in per_seed],
        "val": float(np.mean([trial.val for trial in trials])), **dataset.provenance,
    }  # fmt: skip
    return Score("top1", float(per_seed.mean()), "test", per_seed.shape[1], tuple(seeds), low, high, about)


@dataclass(frozen=True)
class Trial:
    """One fit: the test images it classifies rightly [N], what val chose, its accuracy on val before refitting."""

    right: NDArray[np.bool_]
    choice: dict[str, Any]
    val: float
    head: Head


def _trial(tables: dict[str, Table], name: str, shots: int, seed: int) -> Trial:
    """Fit, choose, open test.

    With all labels the head is fitted again on train and val once val has chosen its strength. With K shots it
    learns from K rows a class of train, and val has K a class too: more would be labels that are not paid for.
    """
    val, test = tables["val"], tables["test"]
    views = [table for split, table in tables.items() if split.startswith("train")]
    rows = _shots.draw(views[0].y, shots, seed) if shots else slice(None)
    train = _joined([_take(view, rows) for view in views])
    if shots:
        val = _take(val, _shots.at_most(val.y, shots, seed))
    chosen = heads.load(name).fit(train.x, train.y, val=(val.x, val.y))
    final = chosen
    if not shots:
        x, y = np.concatenate([train.x, val.x]), np.concatenate([train.y, val.y])
        final = chosen.settled().fit(x, y)
    on_val = float((chosen.predict(val.x) == val.y).mean())
    return Trial(final.predict(test.x) == test.y, chosen.choice, on_val, final)


def _keep(config: Config, dataset: Dataset, row: Row, name: str, trial: Trial) -> None:
    """RUN/classifier, for `twofold predict`: the network with the head that is best on val, of the first seed."""
    from twofold.steps import _classifier

    head, about = trial.head, {"data": config.data, "shots": config.shots, "val": trial.val, "chosen": trial.choice}
    labels = np.array(dataset.classes)[head.classes_]
    fitted = (config.model, row.backbone.fingerprint, row.cell, config.alone, name, head, labels, about)
    _classifier.keep_best(_classifier.Classifier(*fitted), config.out / "classifier")


def _take(table: Table, rows: NDArray[np.int64] | slice) -> Table:
    return replace(table, x=table.x[rows], y=table.y[rows], index=table.index[rows])


def _joined(tables: Sequence[Table]) -> Table:
    """Rows under rows."""
    if len(tables) == 1:
        return tables[0]
    return Table(*(np.concatenate([getattr(t, name) for t in tables]) for name in ("x", "y", "index")))


def _tables(config: Config, dataset: Dataset, row: Row, seed: int) -> dict[str, Table]:
    """The three splits of a row's features with the noise of one seed, from stores that are filled where they lack."""
    reading = replace(config, seed=seed)
    if row.cell.tap.t is None:
        reading = replace(reading, seed=0, draws=1, label=None)
    folder = config.features or config.out / "features"
    # Features without noise are the same for every seed.
    part = "clean" if row.cell.tap.t is None else f"seed{seed}"
    store = _fill.open_store(folder / f"{row.backbone.identity}-{part}", row.backbone, dataset, reading)
    splits = (*datasets.SPLITS, *_views.splits(config.views))
    _fill.fill(store, row.backbone, dataset, splits, [row.cell], reading)
    return {split: store.read(split, row.cell) for split in splits}


def _rows(config: Config, dataset: Dataset, maps: bool) -> Iterator[Row]:
    """The model, then its controls: raw pixels, and the same network untrained at the same tap."""
    backbone = _load(config, config.model)
    cell = _cell(config, backbone, maps)
    yield Row(config.model, backbone, cell, control=False)
    name = backbones.parse(config.model)
    if "pixels" in config.controls and name.scheme != "pixels":
        size = dataset.image_size or backbone.image_size
        pixels = _load(replace(config, label=None), f"pixels:{size}")
        yield Row("pixels", pixels, Cell(Tap(1, None), 0 if maps else size), control=True)
    if "untrained" in config.controls and name.scheme != "pixels" and not name.untrained:
        yield Row("untrained", _load(config, str(replace(name, untrained=True))), cell, control=True)


def _load(config: Config, model: str) -> Backbone:
    return config.load(model)


def _cell(config: Config, backbone: Backbone, maps: bool) -> Cell:
    """Where to read: given, or as `twofold select` chose; heads that read maps leave its pool out."""
    if (config.choice is None) == (config.block is None):
        raise BadSetting("probe needs a place to read: --choice RUN of twofold select, or --block with --t and --pool.")
    if config.choice is not None:
        if not config.t is config.sigma is config.pool is None:
            raise BadSetting("--choice says where to read, so --t, --sigma and --pool mean nothing. Leave them out.")
        chosen = _chosen(config.choice, config, backbone)
        return replace(chosen, pool=0) if maps else chosen
    if config.block == "all":
        raise BadSetting("probe --block must be one block, not all. `twofold select` finds the best of all.")
    if isinstance(backbone, DiffusionBackbone) and config.t is None and config.sigma is None:
        raise BadSetting(f"{config.model} is a diffusion model: give --t or --sigma with --block.")
    t, sigma = (None if v is None else (v,) for v in (config.t, config.sigma))
    steps = _fill.steps(backbone, t, sigma)
    return _fill.cells(backbone, (str(config.block),), steps, (0 if maps else config.pool or 1,))[0]


def _chosen(folder: Path, config: Config, backbone: Backbone) -> Cell:
    """The cell that `twofold select` chose for this model and data."""
    path = folder / "choice.json"
    if not path.exists():
        raise BadRun(f"{folder} holds no choice.json: it is not a finished run of `twofold select`. Run that first.")
    choice = files.read_json(path, CHOICE, advice=SELECT_AGAIN)
    # The same network may be named in several ways, and another may have come to stand behind the same name.
    for name, same in (("model", choice["backbone"] == backbone.identity), ("data", choice["data"] == config.data)):
        if not same:
            here = getattr(config, name)
            raise BadRun(f"{path} chose for the {name} {choice[name]}, not for {here}. Give the choice of this {name}.")
    cell = Cell(Tap(choice["block"], choice["t"]), choice["pool"])
    if str(cell) != choice["cell"]:
        raise BadRun(f"{path} is damaged: it says both {cell} and {choice['cell']}. {SELECT_AGAIN}")
    try:
        backbone.check_step(cell.tap.t)
        if not 1 <= cell.pool <= backbone.block(cell.tap.block).size:
            raise BadSetting(f"pool {cell.pool} does not fit the block's map.")
    except BadSetting as error:
        raise BadRun(f"{path} is damaged: {error} {SELECT_AGAIN}") from error
    return cell


def _check_shots(config: Config, dataset: Dataset) -> None:
    """More shots than a class has images is an error before any work."""
    if config.shots:
        _shots.draw(dataset.build("train").labels, config.shots, config.seed)


def _table(scores: list[Score]) -> str:
    rows = [("", "head", "read at", "top-1 on test, %", "n")]
    for s in scores:
        t = "clean" if s.about["t"] is None else f"t={s.about['t']:g}"
        place = f"{s.about['block']} {t} pool {s.about['pool'] or 'none'}"
        rows.append((s.about["row"], s.about["head"], place, results.percent(s), str(s.n)))
    return results.table(rows)

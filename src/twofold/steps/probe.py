"""Train a head on frozen features and score it on test, beside its controls."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from twofold import files, results, runs
from twofold.analyses import base as analyses
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset
from twofold.errors import BadRun, BadSetting
from twofold.heads import base as heads
from twofold.heads.base import Head
from twofold.plots import heatmaps
from twofold.records import Number, Outcome, Score
from twofold.runs import Run
from twofold.settings import setting
from twofold.steps import _labels, _metrics, _rows, _shots, _speeds, _spread, _tables, _trials, _views, _zero_shot
from twofold.steps._rows import Place, Row
from twofold.steps._trials import Predictions
from twofold.steps._zero_shot import Whole

log = logging.getLogger("twofold")

MAIN = "top1"
DIFFERENCE = "top1_difference"
# What a score of this verb says of itself.
ABOUT = {"row": str, "head": str, "block": str, "t": Number | None, "pool": int}
ZERO_SHOT = _zero_shot.NAME
DRAWN_CLASSES = 60  # a picture of more is unreadable; the table beside it has all


@dataclass(frozen=True)
class Config(Place):
    """Settings of `twofold probe`."""

    out: Path = setting(
        help="folder of the run: results.jsonl, predictions/, confusion.png and confusion/*.csv", identity=False
    )
    head: tuple[str, ...] = setting(
        ("logistic",), help=f"heads to train; {ZERO_SHOT}: none, the class that explains an image's noise best"
    )
    shots: int = setting(
        0, help="labels a class to learn from, and as many of val for its strength; 0: all", least=0, most=10**9
    )
    seeds: int = setting(1, help="how many seeds (of noise and of shots) are averaged", least=1, most=10**4)
    against: Path | None = setting(
        None, help="run of probe on the same images whose first row all rows are compared with; none: this run's own"
    )
    noises: int = setting(
        16,
        help=f"--head {ZERO_SHOT}: noise samples an image that the last classes are compared with",
        least=1,
        most=10**5,
    )
    stages: int = setting(
        3,
        help=f"--head {ZERO_SHOT}: how often classes are left out, with twice the samples each time",
        least=1,
        most=16,
    )
    features: str | None = setting(None, help="folder or address for the stores; none: OUT/features", identity=False)


def run(config: Config) -> Outcome:
    """Fit on train, choose strengths on val, open test once; a second run tells the same again."""
    _spread.check(config)
    reads = None if ZERO_SHOT in config.head else _reads(config)
    dataset = _dataset(config, reads)
    rival = _rival(config, dataset)
    rows = list(_rows_of(config, dataset, reads))
    with runs.opened(config.out, "probe", config, _inputs(config, dataset, rows[0], rival)) as run_:
        if run_.finished is None:
            dataset.tell_skipped()
            _score_all(config, run_, dataset, rows, rival)
            run_.finish(_facts(_scores(run_)))
        scores = _scores(run_)
    return Outcome(_facts(scores), _table(scores))


def _dataset(config: Config, reads: Head | None) -> Dataset:
    """The data, held against what is asked of it."""
    if reads is None:
        _zero_shot.check(config, config.head, config.shots)
        return datasets.load(config.data, on_error=config.on_error)
    _views.splits(config.views)
    dataset = datasets.load(config.data, on_error=config.on_error)
    _labels.check(dataset)
    if config.shots:
        _shots.check(dataset, config.shots)
    return dataset


def _rows_of(config: Config, dataset: Dataset, reads: Head | None) -> Iterator[Row | Whole]:
    """What is compared: what heads read, or without heads the networks themselves."""
    if reads is None:
        yield from _zero_shot.rows(config, dataset, config.noises, config.stages)
    else:
        yield from _rows.rows(config, dataset, reads)


def _reads(config: Config) -> Head:
    """A head that reads what all of them read: they share one table, which holds rows, a map, or several."""
    loaded = {name: heads.load(name) for name in config.head}
    kinds = {name: _kind(head) for name, head in loaded.items()}
    if len(set(kinds.values())) > 1:
        of_maps = ", ".join(name for name, kind in kinds.items() if kind != "pooled rows")
        raise BadSetting(
            f"{of_maps} reads maps, the other heads pooled rows. Probe them in two runs."
            if "pooled rows" in kinds.values()
            else f"{' and '.join(f'{n} reads {k}' for n, k in kinds.items())}. Probe them in two runs."
        )
    first = next(iter(loaded.values()))
    maps = first.maps or first.several
    if config.pool is not None and maps is not (config.pool == 0):
        what = "maps: give --pool 0, or leave --pool out" if maps else "pooled rows: give --pool 1 or more"
        raise BadSetting(f"The head {config.head[0]} reads {what}.")
    if maps and config.draws_as == "concatenate":
        raise BadSetting(f"--draws-as concatenate widens rows, and the head {config.head[0]} reads maps. Leave it out.")
    return first


def _kind(head: Head) -> str:
    return "several maps" if head.several else "one map" if head.maps else "pooled rows"


def _rival(config: Config, dataset: Dataset) -> tuple[dict[str, str], Predictions] | None:
    """Names and predictions of the first row of the run that `--against` names."""
    if config.against is None:
        return None
    folder = config.against
    if not (folder / "finished.json").exists() or runs.read_config(folder)["verb"] != "probe":
        raise BadRun(f"--against {folder} is not a finished run of `twofold probe`. Give one.")
    first = results.read(folder, ABOUT)[0].about
    found = _trials.load(_trials.path_of(folder, first["row"], first["head"]))
    test = dataset.build("test")
    if not np.array_equal(found.index, test.index) or not np.array_equal(found.labels, test.labels):
        raise BadRun(f"--against {folder} was tested on other images than {config.data}: pairs are of the same images.")
    if len(found.seeds) != config.seeds:
        raise BadRun(f"--against {folder} has {len(found.seeds)} seeds, not {config.seeds}. Give --seeds the same.")
    return {"run": str(folder), "row": first["row"], "head": first["head"]}, found


def _inputs(config: Config, dataset: Dataset, row: Row | Whole, rival: Any) -> dict[str, str]:
    """What the scores are made from: of a choice it is the cell that counts, not the file it stands in."""
    made_from = {"model": row.backbone.fingerprint, "data": dataset.fingerprint}
    if config.choice is not None:
        made_from["choice"] = "+".join(map(str, row.cells))
    if rival is not None:
        made_from["against"] = hashlib.sha256(rival[1].predicted.tobytes()).hexdigest()[:16]
    return made_from


def _scores(run_: Run) -> list[Score]:
    """The scores so far, which say where they belong in the table."""
    return results.read(run_.folder, ABOUT)


def _score_all(config: Config, run_: Run, dataset: Dataset, rows: list[Row | Whole], rival: Any) -> None:
    """Append the scores of every row and head that results.jsonl lacks, and draw what was taken for what.

    Predictions are the first thing that is written, so what can be counted from them is never computed twice.
    """
    known = {(s.name, s.about["row"], s.about["head"]) for s in _scores(run_)}
    for row in rows:
        for head in config.head:
            found = _predictions(config, run_, dataset, row, head)
            first = ({"row": row.name, "head": head}, found)
            scores = list(_measured(config, dataset, row, head, found))
            if rival is not None:
                scores.append(_difference(scores[0], rival, found))
            rival = rival or first
            results.append(run_.folder, [s for s in scores if (s.name, row.name, head) not in known])
            if (MAIN, row.name, head) not in known:
                log.info("%s, %s: %s %%", row.name, head, results.percent(scores[0]))
    _draw(config, run_, dataset, rows)


def _predictions(config: Config, run_: Run, dataset: Dataset, row: Row | Whole, head: str) -> Predictions:
    """Those that an earlier run left, or new ones."""
    path = _trials.path_of(run_.folder, row.name, head)
    if not path.exists():
        seeds = range(config.seed, config.seed + config.seeds)
        if isinstance(row, Row):
            _learned(config, dataset, row, head, seeds).save(path)
        else:
            _zero_shot.write(config, path, dataset, row, seeds)
    return _trials.load(path)


def _learned(config: Config, dataset: Dataset, row: Row, head: str, seeds: range) -> Predictions:
    """Those of a head that learns from features."""
    folder = config.features or str(config.out / "features")
    timed = partial(_speeds.note, config.out, row.name, row.passes)
    read = partial(_tables.read, config, dataset, row, seeds=config.seeds, folder=folder, timed=timed)
    one_place = len(row.cells) == 1 and (config.draws == 1 or config.draws_as == "average")
    keep = partial(_keep, config, dataset, row, head) if one_place and not row.control else None
    return _trials.run(read, head, config.shots, seeds, keep)


def _keep(
    config: Config, dataset: Dataset, row: Row, name: str, head: Head, choice: dict[str, Any], val: float
) -> None:
    """RUN/classifier, for `twofold predict`: the network with the head that is best on val, of the first seed."""
    from twofold.steps import _classifier

    labels = np.array(dataset.classes)[head.classes_]
    about = {"data": config.data, "shots": config.shots, "val": val, "chosen": choice}
    fitted = (config.model, row.backbone.fingerprint, row.cells[0], config.alone, name, head, labels, about)
    _classifier.keep_best(_classifier.Classifier(*fitted), config.out / "classifier")


def _measured(config: Config, dataset: Dataset, row: Row | Whole, head: str, found: Predictions) -> list[Score]:
    """Every measure of one row and head as a score, top-1 first."""
    about = row.about | dataset.provenance | {
        "data": config.data, "head": head, "shots": config.shots, "views": list(_views.splits(config.views)),
        "chosen": [json.loads(c) for c in found.chosen], "passes": row.passes,
    }  # fmt: skip
    if isinstance(row, Row):
        draws = 1 if row.cells[0].tap.t is None else config.draws
        about |= {
            "train": config.shots * len(dataset.classes) or len(dataset.build("train")),
            "val": float(found.val.mean()), "passes": row.passes * draws, "operations": about["operations"] * draws,
            **_speeds.about(config.out, row.name),
        }  # fmt: skip
    if config.choice is not None and config.other_data:
        about["choice"] = str(config.choice)
    seeds = tuple(int(seed) for seed in found.seeds)
    return [
        Score(m.name, m.value, "test", len(found.labels), seeds, m.low, m.high, about | {"per_seed": m.per_seed})
        for m in _metrics.measure(found)
    ]


def _difference(score: Score, rival: tuple[dict[str, str], Predictions], found: Predictions) -> Score:
    """How far a row's top-1 lies from the rival's on the same images, with the p of the paired test."""
    against, theirs = rival
    pair = {"first": theirs.right.T.astype(np.float64), "second": found.right.T.astype(np.float64)}
    (told,) = analyses.load("paired").measure(pair)
    about = {n: v for n, v in score.about.items() if n not in ("per_seed", "val", "chosen")} | told.about
    return replace(told, name=DIFFERENCE, seeds=score.seeds, about=about | {"against": against})


def _draw(config: Config, run_: Run, dataset: Dataset, rows: list[Row | Whole]) -> None:
    """Confusion matrices: one CSV for each row and head, one picture for the model's heads."""
    panels = {}
    for row in rows:
        for head in config.head:
            path = _trials.path_of(run_.folder, row.name, head)
            counts = _metrics.confusion(_trials.load(path), len(dataset.classes))
            own = zip(dataset.classes, counts, strict=True)
            lines = [["label", *dataset.classes], *([name, *map(str, row_)] for name, row_ in own)]
            files.write_csv(run_.folder / "confusion" / f"{path.stem}.csv", lines)
            if not row.control:
                panels[head] = counts
    if len(dataset.classes) <= DRAWN_CLASSES:
        heatmaps.confusion(panels, dataset.classes, f"Test images of {config.data}", run_.folder / "confusion.png")


def _facts(scores: list[Score]) -> dict[str, Any]:
    """Top-1 of every row and head, and what else was measured."""
    return {
        "scores": [s.record() for s in scores if s.name == MAIN],
        "measures": [s.record() for s in scores if s.name != MAIN],
    }


def _table(scores: list[Score]) -> str:
    apart = {(s.about["row"], s.about["head"]): s for s in scores if s.name == DIFFERENCE}
    rival = next((s.about["against"].get("run") for s in apart.values()), None)
    whose = f"the first row of {rival}" if rival else "the first row"
    lines = [("", "head", "read at", "top-1 on test, %", "n", f"against {whose}, points")]
    for s in (s for s in scores if s.name == MAIN):
        pair = apart.get((s.about["row"], s.about["head"]))
        told = "" if pair is None else f"{results.percent(pair, signed=True)}  {results.p_text(pair.about['p'])}"
        lines.append((s.about["row"], s.about["head"], _rows.place_text(s.about), results.percent(s), str(s.n), told))
    return results.table(lines)

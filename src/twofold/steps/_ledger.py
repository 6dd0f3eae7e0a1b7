"""A ledger: a folder of scores that runs were submitted with, one file a run, each held against its run first."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from twofold import files, results, runs
from twofold.errors import BadRun
from twofold.records import Score, check
from twofold.steps import _boards, _page, _standings, _trials
from twofold.steps._page import RunFolder

ENTRY = {
    "id": str, "name": str, "verb": str, "submitted": str, "settings": dict, "inputs": dict, "made": dict,
    "scores": list,
}  # fmt: skip
ADVICE = "Delete it and submit its run again."
AGAIN = "Make the run again in another folder."
EQUAL = 1e-9  # accuracies that differ by less are the same


def submit(folder: Path, ledger: Path) -> bool:
    """Add a run's scores; gives whether they are new, since a second time changes nothing.

    Raises:
        BadRun: what is wrong with the run, see `checked`.
    """
    entry = checked(folder)
    path = ledger / f"{entry['id']}.json"
    if path.exists():
        return False
    files.write_json(path, entry | {"submitted": time.strftime("%Y-%m-%d")})
    return True


def checked(folder: Path) -> dict[str, Any]:
    """What the ledger keeps of a run.

    Raises:
        BadRun: it is unfinished, its scores were changed, are none of test or lack n, seeds or an interval, it does
            not say what it was made from, or its predictions say something else.
    """
    config = runs.read_config(folder)
    if not (folder / "finished.json").exists():
        raise BadRun(f"{folder} is not finished. Run its command again, then submit it.")
    scores = [score for score in results.read(folder) if _counts(config["verb"], score)]
    if not scores:
        raise BadRun(f"{folder} has no score on test. Give a run of probe, finetune or fid.")
    _check_seal(folder)
    for score in scores:
        _check_score(folder, score)
    inputs = config.get("inputs", {})
    lacking = [name for name in _needed(scores) if not inputs.get(name)]
    if lacking or not inputs:
        unknown = " and ".join(lacking) or "data"
        raise BadRun(f"{folder} does not say which {unknown} it was made from: config.toml has no hash. {AGAIN}")
    for score in scores:
        _check_predictions(folder, score)
    scores = [replace(score, about=score.about | _behind(score)) for score in scores]
    kept = {name: config.get(name, {}) for name in ("verb", "settings", "inputs", "made")}
    told = {"scores": [score.record() for score in scores]} | {name: kept[name] for name in ("verb", "inputs")}
    identity = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    return {"id": identity, "name": _name(folder), **kept, "scores": told["scores"]}


def _behind(score: Score) -> dict[str, str]:
    """The model behind generated images, which their run says here and perhaps not where the ledger is read."""
    return _boards.generator(score.about) if _standings.is_distance(score.name) else {}


def _counts(verb: str, score: Score) -> bool:
    """Whether a score is one of a board."""
    return _standings.is_distance(score.name) or (score.split == "test" and verb not in _standings.ELSEWHERE)


def _needed(scores: list[Score]) -> tuple[str, ...]:
    """What accuracies are made from; a Frechet distance may be of folders of images."""
    return () if all(_standings.is_distance(score.name) for score in scores) else ("model", "data")


def _check_seal(folder: Path) -> None:
    same = runs.sealed(folder)
    if same is None:
        raise BadRun(f"{folder} notes no hash of its scores: an older twofold made it. {AGAIN}")
    if not same:
        raise BadRun(f"{folder}/results.jsonl is not what the run finished with: it was changed since. {AGAIN}")


def _check_score(folder: Path, score: Score) -> None:
    """Every number must say how sure it is; of a distance that was measured without an interval n is enough."""
    interval = score.low is not None and score.high is not None
    lacking = {"n": score.n > 0, "an interval": interval, "seeds": bool(score.seeds)}
    if _standings.is_distance(score.name):
        lacking = {"n": score.n > 0}
    for name, there in lacking.items():
        if not there:
            raise BadRun(f"{folder}: the score {score.name} lacks {name}. {AGAIN}")


def _check_predictions(folder: Path, score: Score) -> None:
    """Count an accuracy again from the answers it was counted from."""
    if score.name != "top1":
        return
    path = _trials.path_of(folder, str(score.about.get("row")), str(score.about.get("head")))
    if not path.exists():
        raise BadRun(f"{folder} lacks {path.relative_to(folder)}, which {score.name} was counted from. {AGAIN}")
    found = _trials.load(path)
    same = abs(float(found.right.mean()) - score.value) < EQUAL and len(found.labels) == score.n
    if not same or tuple(found.seeds.tolist()) != score.seeds:
        raise BadRun(f"{path} says something else than results.jsonl: {score.name} is not what it gives. {AGAIN}")


def _name(folder: Path) -> str:
    """The run's folder as it was given, or its last part where that leads elsewhere."""
    plain = not folder.is_absolute() and ".." not in folder.parts
    return folder.as_posix() if plain and folder.name else folder.resolve().name


def entries(ledger: Path) -> list[RunFolder]:
    """All runs of a ledger, in the order in which they were made.

    Raises:
        BadRun: there is no such folder, it holds no entry, or one is damaged.
    """
    if not ledger.is_dir():
        raise BadRun(f"There is no ledger {ledger}. `twofold report --submit RUN --ledger {ledger}` begins one.")
    found = [_read(path) for path in sorted(ledger.glob("*.json"))]
    if not found:
        raise BadRun(f"{ledger} holds no scores. `twofold report --submit RUN --ledger {ledger}` adds those of a run.")
    return sorted(found, key=lambda run: (str(run.made.get("at", "")), run.name))


def _read(path: Path) -> RunFolder:
    entry = files.read_json(path, ENTRY, advice=ADVICE)
    with files.undamaged(path, ADVICE):
        scores = [Score.from_record(record) for record in entry["scores"]]
        for score in scores:
            check(score.about, {}, _page.ABOUT)
        told = {"submitted": entry["submitted"], "id": entry["id"], "inputs": entry["inputs"]}
    settings, made = entry["settings"], entry["made"]
    return RunFolder(path, entry["name"], path.parent.resolve(), entry["verb"], settings, made, told, scores)


def alone(shown: list[RunFolder]) -> list[RunFolder]:
    """Runs whose names are taken already get their number behind them."""
    names = [run.name for run in shown]
    told = [
        r.name if names.count(r.name) == 1 else f"{r.name} ({str((r.finished or {}).get('id'))[:6]})" for r in shown
    ]
    return [replace(run, name=name) for run, name in zip(shown, told, strict=True)]

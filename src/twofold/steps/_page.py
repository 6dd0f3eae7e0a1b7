"""What run folders have to show: files in, plain values for the page's template out."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twofold import files, results, runs
from twofold.errors import BadRun
from twofold.plots import curves as drawn
from twofold.plots import pictures
from twofold.records import Kinds, Number, Score, check, number_text
from twofold.steps import _drawn, _names

PICTURE_BYTES = 2_000_000  # a larger picture is shrunk, since the page carries it
PICTURE_SIDE = 1600  # pixels of the longer side of a shrunk picture
GRID_MOST = 100
BEST_CELLS = 8
SHARES = ("top1", "top5", "accuracy", "recognised", "sure")
MEANINGS = {
    "sure": "images that a classifier of real ones is sure of",
    "sure_ratio": "generated over real",
    "classes_seen": "classes among the images it is sure of",
}
LEAVE_OUT = "Leave this run out, or make it again in another folder."

# What the page counts with, where a run has it: settings and facts of each verb, and what a score says about itself.
SETTINGS: dict[str, Kinds] = {
    "pretrain": {"images": int}, "select": {"shots": int, "trials": int}, "compare": {"models": list[str]},
}  # fmt: skip
FACTS: dict[str, Kinds] = {
    "pretrain": {
        "images": int, "parameters": int, "seconds": Number, "images_per_second": Number, "loss": Number,
        "probe": Number | None,
    },
    "sample": {"num": int}, "compare": {"n": int, "same": bool, "matches": list},
}  # fmt: skip
ABOUT: Kinds = {
    "shots": int, "per_seed": list[Number], "val": Number, "t": Number | None, "sigma": Number | None,
    "pool": int | None, "parameters": Number, "operations": Number, "images_per_second": Number,
}  # fmt: skip


@dataclass(frozen=True)
class RunFolder:
    """One run as the page knows it.

    Attributes:
        folder: where it is.
        name: the folder relative to the parent of all runs.
        parent: that parent; paths in prose are relative to it.
        verb, settings, made: what config.toml says.
        finished: what the command gave back, None while it is not done.
        scores: its results.jsonl.
        called: data sets that another run of the page calls alike, and names that tell them apart.
    """

    folder: Path
    name: str
    parent: Path
    verb: str
    settings: dict[str, Any]
    made: dict[str, Any]
    finished: dict[str, Any] | None
    scores: list[Score]
    called: dict[str, str] = field(default_factory=dict)

    def short(self, name: str) -> str:
        """A model's or data set's name for prose: paths relative to the parent of all runs, or their last part."""
        found = _names.short(name, self.parent)
        return self.called.get(found, found)

    def setting(self, name: str) -> str:
        """A setting's value for prose, a dash where there is none."""
        return self.short(str(self.settings.get(name, "–")))

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Records of one of the run's JSON-lines files."""
        return files.read_lines(self.folder / name)


def read(folder: Path, parent: Path) -> RunFolder:
    """Read what every run has.

    Raises:
        BadRun: there is no such folder, no run in it, or one of its files is damaged.
    """
    if not folder.exists():
        raise BadRun(
            f"There is no run {folder}: the folder does not exist. Give the --out folder of an earlier command."
        )
    config = runs.read_config(folder)
    verb, settings = config["verb"], config.get("settings", {})
    with undamaged(folder / "config.toml"):
        check(settings, {}, SETTINGS.get(verb))
    scores = results.read(folder, may=ABOUT)
    name, made = folder.resolve().relative_to(parent).as_posix(), config.get("made", {})
    done = read_json(folder / "finished.json", FACTS.get(verb))
    return RunFolder(folder, name, parent, verb, settings, made, done, scores)


def read_json(path: Path, may: Kinds | None = None) -> dict[str, Any] | None:
    """One JSON object, None where there is no such file."""
    return files.read_json(path, may=may, advice=LEAVE_OUT) if path.exists() else None


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Say which file is damaged when what is inside cannot be understood; a damaged picture is an OSError."""
    try:
        with files.undamaged(path, LEAVE_OUT):
            yield
    except OSError as error:
        raise BadRun(f"{path} is damaged: {error}. {LEAVE_OUT}") from error


def samples(run: RunFolder) -> dict[str, Any]:
    """Picture, facts and scores of a run of `sample`."""
    drawn = _drawn.written(run.folder, _wanted(run))
    said = {name: run.setting(name) for name in ("model", "sampler", "steps", "seed")} | {"num": str(_wanted(run))}
    counts = {"drawn": len(drawn), "shown": min(len(drawn), GRID_MOST)}
    names = {s.name for s in run.scores}
    meanings = [(name.replace("_", " "), told) for name, told in MEANINGS.items() if name in names]
    scores = [_plain(s) for s in run.scores]
    return {"picture": _grid(run, drawn), "scores": scores, "meanings": meanings, **counts, **said}


def distances(run: RunFolder) -> list[dict[str, str]]:
    """The scores of a run of `fid`: which images, against which, by which features."""
    with undamaged(run.folder / "results.jsonl"):
        return [_distance(run, score) for score in run.scores]


def _distance(run: RunFolder, score: Score) -> dict[str, str]:
    about, ends = score.about, (score.low, score.high)
    sides = {side: f"{run.short(about[side])} ({about[f'{side}_n']:,})" for side in ("a", "b")}
    interval = " to ".join(f"{end:.4g}" for end in ends if end is not None)
    return {
        **sides, "what": score.name, "value": f"{score.value:.4g}", "interval": interval,
        "features": f"{run.short(about['features'])}, {about['block']}", "run": run.name,
    }  # fmt: skip


def _wanted(run: RunFolder) -> int:
    """How many images there shall be; a run that grew says so when it is done."""
    with undamaged(run.folder / "config.toml"):
        return max(int(run.settings["num"]), int((run.finished or {}).get("num", 0)))


def _grid(run: RunFolder, drawn: Sequence[Path]) -> dict[str, Any] | None:
    """The run's grid; one of the images so far where it has none yet."""
    if (run.folder / "grid.png").exists():
        return picture(run.folder / "grid.png")
    if not drawn:
        return None
    with tempfile.TemporaryDirectory() as scratch, undamaged(run.folder / "images"):
        pictures.image_grid(drawn[:GRID_MOST], Path(scratch) / "grid.png")
        return picture(Path(scratch) / "grid.png")


def _plain(score: Score) -> dict[str, str]:
    """A score of any name as text; one that is a share in percent."""
    share = score.name in SHARES
    value, low, high = (_number(v, share) for v in (score.value, score.low, score.high))
    return {
        "what": score.name.replace("_", " "), "on": score.split,
        "value": f"{value}\u00a0%" if share else value, "interval": f"{low} to {high}" if low and high else "",
        "n": f"{score.n:,}",
    }  # fmt: skip


def _number(value: float | None, share: bool) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f}" if share else number_text(round(value, 3))


def training(run: RunFolder) -> dict[str, Any]:
    """Curves and facts of a run of `pretrain`."""
    metrics = run.lines("metrics.jsonl")
    with tempfile.TemporaryDirectory() as scratch, undamaged(run.folder / "metrics.jsonl"):
        curves = Path(scratch) / "curves.png"
        if metrics:
            drawn.training_curves(metrics, curves)
        shown = picture(curves) if metrics else None
        facts = _training_facts(run, metrics)
    return {"picture": shown, "facts": facts, "probed": any("probe" in m for m in metrics)}


def _training_facts(run: RunFolder, metrics: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Names and values; those of a finished run, else as far as it has come."""
    last: dict[str, Any] = {}
    for record in metrics:
        last.update(record)
    known = {**last, **(run.finished or {})}
    if "images_per_second" not in known and known.get("seconds"):
        known["images_per_second"] = known["images"] / known["seconds"]
    told = {
        "data": run.setting("data"), "images seen": _images(run, known),
        "time": _duration(known.get("seconds")), "speed": _with("{:,.0f} images/s", known.get("images_per_second")),
        "parameters": _with("{:,}", known.get("parameters")), _loss_is(run): _with("{:.4f}", known.get("loss")),
        "Fréchet distance from val": _with("{:.4g}", known.get("fd")),
        "probe on val": _with("{:.1f}\u00a0%", _hundred(known.get("probe"))),
        "batch": run.setting("batch"), "peak learning rate": run.setting("lr"), "precision": run.setting("precision"),
    }  # fmt: skip
    return [(name, value) for name, value in told.items() if value]


def _loss_is(run: RunFolder) -> str:
    return "loss, last 5 readings" if run.finished else "last loss"


def _images(run: RunFolder, known: dict[str, Any]) -> str:
    seen, wanted = known.get("images", 0), run.settings.get("images", 0)
    return f"{seen:,}" if run.finished else f"{seen:,} of {wanted:,}"


def selection(run: RunFolder) -> dict[str, Any]:
    """Map, choice in words and the best cells of a run of `select`."""
    judged = run.lines("map.jsonl")
    choice = read_json(run.folder / "choice.json")
    with undamaged(run.folder / "map.jsonl"):
        cells = [_cell(r) for r in sorted(judged, key=lambda r: -r["accuracy"])[:BEST_CELLS]]
    with undamaged(run.folder / "choice.json"):
        chosen = {**_cell(choice), "n": choice["n"]} if choice else None
    shots, shown = run.settings.get("shots", 0), run.folder / "map.png"
    return {
        "model": run.setting("model"), "data": run.setting("data"), "head": run.setting("head"),
        "labels": labels_text(shots), "few": bool(shots), "choice": chosen,
        "trials": run.settings.get("trials", 1) if shots else 1,
        "cells": cells, "judged": len(judged), "picture": picture(shown) if shown.exists() else None,
    }  # fmt: skip


def _cell(record: dict[str, Any]) -> dict[str, Any]:
    """A judged cell: where it is, its accuracy and its cost in percent."""
    where = place(*(record[name] for name in ("block", "name", "t", "sigma", "pool")))
    return {"place": where, "accuracy": f"{100 * record['accuracy']:.1f}", "cost": f"{100 * record['share']:.0f}"}


def place(block: int | None, name: str, t: float | None, sigma: float | None, pool: int) -> str:
    """Where features are read, in words."""
    number = "" if block is None else f"block {block} "
    noise = "clean image" if t is None else f"t\u00a0=\u00a0{number_text(t)} (σ\u00a0=\u00a0{sigma or 0:.2g})"
    return f"{number}{name}, {noise}, pool\u00a0{pool}"


def labels_text(shots: int) -> str:
    """How many labels a head learns from, in words."""
    return f"{shots} label{'s' if shots > 1 else ''} a class" if shots else "all labels"


def picture(path: Path) -> dict[str, Any]:
    """A PNG as a data: address with its width and height in pixels; a very large one shrunk.

    Raises:
        BadRun: it is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            size = image.size
            content = path.read_bytes() if path.stat().st_size <= PICTURE_BYTES else _shrunk(image)
    except (UnidentifiedImageError, OSError) as error:
        raise BadRun(
            f"{path} is not a picture that can be read. Run its command again, or leave the run out."
        ) from error
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return {
        "src": f"data:image/{kind};base64,{base64.b64encode(content).decode()}",
        "width": size[0],
        "height": size[1],
    }


def _shrunk(image: Any) -> bytes:
    import io

    image = image.convert("RGB")
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=90)
    return content.getvalue()


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def _with(form: str, value: float | None) -> str:
    return "" if value is None else form.format(value)


def _hundred(share: float | None) -> float | None:
    return None if share is None else 100 * share

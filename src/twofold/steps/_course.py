"""The course of a training that is counted in images: checkpoints, notes, and a stop where it diverges.

What is trained is a `Trainee`: the diffusion network of `pretrain`, or one of the rivals that it is compared with.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from twofold import files, runs
from twofold.errors import Diverged
from twofold.records import Number
from twofold.runs import Run

log = logging.getLogger("twofold")

NOTED = ("loss", "lr", "seconds", "probe", "fd", "tapped")


class Pace(Protocol):
    """Settings of a course, in images; `probe_every` 0: never."""

    @property
    def out(self) -> Path: ...
    @property
    def images(self) -> Any: ...
    @property
    def lr(self) -> float: ...
    @property
    def probe_every(self) -> Any: ...
    @property
    def save_every(self) -> int: ...
    @property
    def log_every(self) -> int: ...


class Trainee(Protocol):
    """What is trained: it counts the images that it saw, and knows what a checkpoint must hold.

    Attributes:
        is_main: whether this process writes.
        parameters: how many weights are trained.
        seen, saved: images so far, and at the last checkpoint.
        lr: the rate of the last update.
        told: what the progress bar says.
        tell: is told what is noted.
    """

    is_main: bool
    parameters: int
    seen: int
    saved: int
    lr: float
    told: str
    tell: Callable[[Mapping[str, Any]], None]

    def update(self) -> None: ...
    def losses(self) -> list[float]: ...
    def mean_loss(self) -> float: ...
    def sound(self) -> bool: ...
    def check_together(self) -> None: ...
    def wait(self) -> None: ...
    def probe(self) -> float: ...
    def save(self, path: Path) -> None: ...
    def restore(self, path: Path) -> None: ...
    def pipeline(self) -> Any: ...


@dataclass(frozen=True)
class Extra:
    """What a course does beside the usual.

    Attributes:
        every, look: every so many images the model is looked at; 0: never.
        leave: writes the model into the run's folder at the end.
    """

    every: int = 0
    look: Callable[[], None] = lambda: None
    leave: Callable[[Path], None] | None = None


def images_seen(model: str) -> int | None:
    """How many images the training that a MODEL names has seen; None where it is none, or does not say."""
    path = Path(model.partition("?")[0].removeprefix("run:")) / "finished.json"
    found = files.read_json(path, {}, {"images": int}) if path.is_file() else {}
    return int(found["images"]) if "images" in found else None


def train(config: Pace, trainer: Trainee, run_: Run, extra: Extra | None = None) -> dict[str, Any]:
    """Train to the end, from the last checkpoint if there is one, and save the network as a pipeline.

    Raises:
        Diverged: a loss or a weight is no finite number any more; the last checkpoint stays.
    """
    extra = extra or Extra()
    metrics, checkpoint = run_.folder / "metrics.jsonl", run_.folder / "checkpoint.pt"
    if checkpoint.exists():
        trainer.restore(checkpoint)
        log.info("continuing after %s images", f"{trainer.seen:,}")
    trainer.check_together()
    if run_.writes:
        _cut(metrics, trainer.seen)
    spent = _spent(metrics)
    with runs.progress(config.images, run_.verb, done=trainer.seen) as bar:
        _loop(config, trainer, bar, metrics, checkpoint, spent, extra)
    _check_weights(config, trainer, checkpoint)
    if run_.writes:
        (extra.leave or partial(save_pipeline, trainer))(run_.folder)
    trainer.wait()
    records = notes(metrics)
    losses = [r["loss"] for r in records if "loss" in r][-5:]
    probes = [r["probe"] for r in records if "probe" in r]
    seconds = _spent(metrics)
    return {
        "images": trainer.seen, "parameters": trainer.parameters, "seconds": round(seconds, 1),
        "images_per_second": round(trainer.seen / max(seconds, 1e-9), 1),
        "loss": round(sum(losses) / max(len(losses), 1), 5), "probe": probes[-1] if probes else None,
    }  # fmt: skip


def _loop(
    config: Pace, trainer: Trainee, bar: Any, metrics: Path, checkpoint: Path, spent: float, extra: Extra
) -> None:
    """Update until all images are seen; what is due after an update is decided by the count of images alone."""
    started = time.monotonic()
    while trainer.seen < config.images:
        before = trainer.seen
        trainer.update()
        bar.advance(trainer.seen - before, trainer.told)
        last = trainer.seen >= config.images
        note = last or _due(before, trainer.seen, config.log_every)
        probe = config.probe_every > 0 and (last or _due(before, trainer.seen, config.probe_every))
        looked = extra.every > 0 and (last or _due(before, trainer.seen, extra.every))
        save = last or trainer.seen - trainer.saved >= config.save_every
        if note or probe or looked or save:
            _check_losses(config, trainer, checkpoint)
        if note:
            loss = trainer.mean_loss()
            trainer.told = f"loss {loss:.4f}"
            seconds = spent + time.monotonic() - started
            record = {"images": trainer.seen, "loss": loss, "lr": trainer.lr, "seconds": round(seconds, 2)}
            append(trainer, metrics, record)
        if probe or looked or save:
            _check_weights(config, trainer, checkpoint)
        if probe and trainer.is_main:
            append(trainer, metrics, {"images": trainer.seen, "probe": trainer.probe()})
        if looked:
            extra.look()
        if save:
            trainer.save(checkpoint)


def _check_losses(config: Pace, trainer: Trainee, checkpoint: Path) -> None:
    """Raise `Diverged` where the loss of an update was no finite number."""
    for loss in trainer.losses():
        if not math.isfinite(loss):
            raise _diverged(config, f"The loss became {loss} before image {trainer.seen:,}", checkpoint)


def _check_weights(config: Pace, trainer: Trainee, checkpoint: Path) -> None:
    """Raise `Diverged` where the weights must not be kept: a loss is measured before its update, so it says nothing."""
    if not trainer.sound():
        what = f"The loss became infinite or nan, or the weights did, with the update up to image {trainer.seen:,}"
        raise _diverged(config, what, checkpoint)


def _diverged(config: Pace, what: str, checkpoint: Path) -> Diverged:
    kept = "the checkpoint before it is kept" if checkpoint.exists() else "there was no checkpoint yet"
    return Diverged(
        f"{what} of {config.out}; {kept}. "
        f"Start another run with a smaller --lr (it was {config.lr:g}) or a smaller --clip above 0."
    )


def save_pipeline(trainer: Trainee, folder: Path) -> None:
    """Write the averaged network as a diffusers pipeline; model_index.json comes last and says it is whole."""
    with files.scratch(folder / ".pipeline") as scratch:
        trainer.pipeline().save_pretrained(scratch)
        (folder / "model_index.json").unlink(missing_ok=True)
        for part in ("unet", "scheduler"):
            shutil.rmtree(folder / part, ignore_errors=True)
            (scratch / part).replace(folder / part)
        (scratch / "model_index.json").replace(folder / "model_index.json")


def _due(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return before // every < after // every


def append(trainer: Trainee, path: Path, record: dict[str, Any]) -> None:
    """Note something of the training; of several processes the first does."""
    if trainer.is_main:
        files.append_lines(path, [record])
        trainer.tell(record)


def notes(metrics: Path) -> list[dict[str, Any]]:
    """What was noted so far."""
    return files.read_lines(metrics, {"images": int}, {**dict.fromkeys(NOTED, Number), "tap": str})


def _cut(metrics: Path, seen: int) -> None:
    """Drop what was noted after the checkpoint; it will be noted again."""
    kept = [r for r in notes(metrics) if r["images"] <= seen]
    if metrics.exists():
        files.write_text(metrics, "".join(json.dumps(r) + "\n" for r in kept))


def _spent(metrics: Path) -> float:
    """Seconds of training noted so far."""
    return max((r["seconds"] for r in notes(metrics) if "seconds" in r), default=0.0)


def told(facts: dict[str, Any]) -> str:
    """What came of it, in words."""
    probe = "" if facts["probe"] is None else f", probe on val {100 * facts['probe']:.1f} %"
    return (
        f"{facts['images']:,} images through {facts['parameters'] / 1e6:.1f} M parameters in {facts['seconds']:.0f} s "
        f"({facts['images_per_second']:.0f} images/s), loss {facts['loss']:.4f}{probe}."
    )

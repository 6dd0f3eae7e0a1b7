"""Do all of it on built-in data: pre-train, generate, choose where to read, classify, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold import plots, results
from twofold.analyses import base as analyses
from twofold.datasets import base as datasets
from twofold.records import Outcome, Score
from twofold.settings import setting
from twofold.steps import _drawn, pretrain, probe, report, sample, select

log = logging.getLogger("twofold")

DATA = "digits"
SHOTS = 10
HEADS = ("ridge", "knn")


@dataclass(frozen=True)
class Config:
    """Settings of `twofold demo`."""

    out: Path = setting(Path("demo"), help="folder that gets one run a step, and the page", identity=False)
    images: int = setting(100_000, help="length of pre-training, in images seen", least=1, most=10**12)
    num: int = setting(500, help="images to generate", least=1, most=10**7)
    steps: int = setting(50, help="forward passes an image that is generated", least=1, most=pretrain.Config.steps)
    seeds: int = setting(3, help="seeds of every score", least=1, most=10**4)
    seed: int = setting(0, help="the first seed", least=0, most=2**63 - 1)
    device: str | None = setting(None, help="cpu, cuda, cuda:N or mps; none: a GPU where there is one", identity=False)


def run(config: Config) -> Outcome:
    """Seven runs and a page; a second run of the same command goes on where the first stopped."""
    started = time.monotonic()
    out, model = config.out, str(config.out / "pretrain")
    shared: dict[str, Any] = {"seed": config.seed, "device": config.device}
    _do("1/5 pre-train without labels", pretrain.run, pretrain.Config(DATA, out / "pretrain", config.images, **shared))
    _do("2/5 generate", sample.run, sample.Config(model, out / "sample", config.num, "ddpm", config.steps, **shared))
    looks = _judge_samples(out / "sample", config.num)
    _do("3/5 choose block, noise step and pool on val", _choose, config, model, shared)
    _do("4/5 classify test", _classify, config, model, shared)
    plots.side_by_side([out / "sample" / "grid.png", out / "select-shots" / "map.png"], out / "demo.png")
    runs = tuple(out / name for name in _runs())
    page = _do("5/5 report", report.run, report.Config(runs, out / "report"))
    scores = [s for name in _probes() for s in results.read(out / name)]
    seconds = time.monotonic() - started
    facts = {
        "page": page.facts["page"], "seconds": round(seconds, 1),
        "scores": [s.record() for s in scores], "samples": [s.record() for s in looks],
    }  # fmt: skip
    return Outcome(facts, _summary(scores, looks, seconds, page.facts["page"]))


def _runs() -> list[str]:
    return ["pretrain", "sample", "select", "select-shots", "select-shots-clean", *_probes()]


def _probes() -> list[str]:
    return ["probe", "probe-shots", "probe-shots-clean"]


def _choose(config: Config, model: str, shared: dict[str, Any]) -> None:
    """Three maps from one store: all labels, few labels, and few labels on the clean image."""
    store = config.out / "select" / "features"
    common: dict[str, Any] = {"pool": (1, 2, 4), "features": store, **shared}
    select.run(select.Config(model, DATA, config.out / "select", **common))
    select.run(select.Config(model, DATA, config.out / "select-shots", shots=SHOTS, **common))
    select.run(select.Config(model, DATA, config.out / "select-shots-clean", t=(0.0,), shots=SHOTS, **common))


def _classify(config: Config, model: str, shared: dict[str, Any]) -> None:
    """The test split, once for each question."""
    out = config.out
    common: dict[str, Any] = {"seeds": config.seeds, "features": out / "probe" / "features", **shared}
    probe.run(probe.Config(model, DATA, out / "probe", out / "select", head=HEADS, **common))
    few: dict[str, Any] = {"shots": SHOTS, **common}
    probe.run(probe.Config(model, DATA, out / "probe-shots", out / "select-shots", head=HEADS, **few))
    clean = out / "select-shots-clean"
    probe.run(probe.Config(model, DATA, out / "probe-shots-clean", clean, head=HEADS, controls=("none",), **few))


def _judge_samples(folder: Path, num: int) -> list[Score]:
    """How many samples a classifier of real digits is sure of; noted in the sample run once."""
    known = results.read(folder)
    if known:
        return known
    import numpy as np
    from PIL import Image

    data = datasets.load(DATA)
    tables: dict[str, Any] = {"generated": [np.asarray(Image.open(f)) for f in _drawn.written(folder, num)]}
    train, val, test = (data.build(split) for split in datasets.SPLITS)
    tables["real"] = [*_grey(train), *_grey(val)]
    tables["held_out"] = _grey(test)
    tables = {name: np.stack(images).reshape(len(images), -1) / 255 for name, images in tables.items()}
    tables["real_labels"] = np.concatenate([train.labels, val.labels])
    scores = list(analyses.load("recognised").measure(tables))
    results.append(folder, scores)
    return scores


def _grey(rows: datasets.Rows) -> list[Any]:
    return [image.float().mean(0).numpy() for image in rows.read(range(len(rows)))]


def _do(title: str, what: Callable[..., Any], *arguments: Any) -> Any:
    log.info("— %s", title)
    outcome = what(*arguments)
    if isinstance(outcome, Outcome):
        log.info("%s", outcome.text)
    return outcome


def _summary(scores: list[Score], looks: list[Score], seconds: float, page: str) -> str:
    rows = [("labels", "features", "head", "read at", "top-1 on test, %")]
    for s in scores:
        labels = f"{s.about['shots']} a class" if s.about["shots"] else "all"
        t = "clean" if s.about["t"] is None else f"t={s.about['t']:g}"
        name = s.about["row"] if s.about["control"] else "pre-trained"
        rows.append(
            (labels, name, s.about["head"], f"{s.about['block']} {t} pool {s.about['pool']}", results.percent(s))
        )
    found = {(s.name, s.split): s.value for s in looks}
    generated, real = found["sure", "generated"], found["sure", "test"]
    samples = (
        f"Samples: a classifier of real digits is sure of {100 * generated:.0f} % of them (of real test digits: "
        f"{100 * real:.0f} %); {found['classes_seen', 'generated']:.0f} of 10 classes appear among these."
    )
    return "\n".join([results.table(rows), "", samples, f"Took {seconds:.0f} s. Page: {page}"])

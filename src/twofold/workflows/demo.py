"""Do all of it on built-in data: pre-train, generate, choose where to read, classify, report."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from twofold import results, runs
from twofold.analyses import base as analyses
from twofold.backbones import base as backbones
from twofold.datasets import base as datasets
from twofold.plots import pictures
from twofold.records import Outcome, Score
from twofold.settings import Settings, setting
from twofold.steps import _drawn, _pages, pretrain, probe, report, sample, select

log = logging.getLogger("twofold")

DATA = "digits"
SHOTS = 10
HEADS = ("ridge", "knn")
STAGES = {
    "pre-train without labels": ("pretrain",),
    "generate": ("sample",),
    "choose block, noise step and pool on val": ("select", "select-shots", "select-shots-clean"),
    "classify test": ("probe", "probe-shots", "probe-shots-clean"),
}


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold demo`."""

    out: Path = setting(Path("demo"), help="folder that gets one run a step, and the page", identity=False)
    images: int = setting(140_000, help="length of pre-training, in images seen", least=1, most=10**12)
    num: int = setting(500, help="images to generate", least=1, most=10**7)
    steps: int = setting(50, help="noise steps an image that is generated", least=1, most=pretrain.Config.steps)
    seeds: int = setting(3, help="seeds of every score", least=1, most=10**4)
    seed: int = setting(0, help="the first seed", least=0, most=2**63 - 1)
    device: str | None = setting(None, help="cpu, cuda, cuda:N or mps; none: a GPU where there is one", identity=False)


def run(config: Config) -> Outcome:
    """Eight runs and a page; a second run of the same command goes on where the first stopped."""
    started = time.monotonic()
    out, plan = config.out, _plan(config)
    _check(config, plan)
    for number, (title, names) in enumerate(STAGES.items(), 1):
        log.info("— %s/%s %s", number, len(STAGES), title)
        for name in names:
            log.info("%s", plan[name].run())
    looks = _judge_samples(out / "sample", config.num)
    pictures.side_by_side([out / "sample" / "grid.png", out / "select-shots" / "map.png"], out / "demo.png")
    page = report.run(report.Config(tuple(out / name for name in plan), out / "report")).facts["page"]
    scores = [s for name in STAGES["classify test"] for s in results.read(out / name) if s.name == "top1"]
    seconds = time.monotonic() - started
    facts = {
        "page": page, "seconds": round(seconds, 1),
        "scores": [s.record() for s in scores], "samples": [s.record() for s in looks],
    }  # fmt: skip
    return Outcome(facts, _summary(scores, looks, seconds, page))


@dataclass(frozen=True)
class Part:
    """One run of the demo: a step and its settings."""

    step: ModuleType
    config: Any

    def check(self) -> None:
        """Raise `BadRun` where its folder holds something else."""
        runs.check_free(self.config.out, self.step.__name__.rpartition(".")[2], self.config)

    def run(self) -> str:
        """Do it and say in a line what came out."""
        outcome: Outcome = self.step.run(self.config)
        return outcome.text.partition("\n")[0] if self.step is not probe else str(self.config.out)


def _plan(config: Config) -> dict[str, Part]:
    """All runs by the names of their folders, in the order in which they are made."""
    out, model = config.out, str(config.out / "pretrain")
    shared: dict[str, Any] = {"seed": config.seed, "device": config.device}

    def choice(name: str, **settings: Any) -> Part:
        # Three maps from one store: all labels, few labels, and few labels on the clean image.
        store: dict[str, Any] = {"pool": (1, 2, 4), "features": out / "select" / "features"}
        return Part(select, select.Config(model, DATA, out / name, **store, **settings, **shared))

    def test(name: str, chosen: str, **settings: Any) -> Part:
        store: dict[str, Any] = {"seeds": config.seeds, "features": out / "probe" / "features"}
        return Part(
            probe, probe.Config(model, DATA, out / name, choice=out / chosen, head=HEADS, **store, **settings, **shared)
        )

    return {
        "pretrain": Part(pretrain, pretrain.Config(DATA, out / "pretrain", config.images, **shared)),
        "sample": Part(sample, sample.Config(model, out / "sample", config.num, "ddpm", config.steps, **shared)),
        "select": choice("select"),
        "select-shots": choice("select-shots", shots=SHOTS),
        "select-shots-clean": choice("select-shots-clean", shots=SHOTS, t=(0.0,)),
        "probe": test("probe", "select"),
        "probe-shots": test("probe-shots", "select-shots", shots=SHOTS),
        "probe-shots-clean": test("probe-shots-clean", "select-shots-clean", shots=SHOTS, controls=("none",)),
    }


def _check(config: Config, plan: dict[str, Part]) -> None:
    """Fail before the first run, which takes minutes, where a later one could not be made."""
    backbones.place(config.device, "fp32")
    for part in plan.values():
        part.check()
    _pages.check_out(config.out / "report")


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
    runs.seal(folder)
    return scores


def _grey(rows: datasets.Rows) -> list[Any]:
    return [image.float().mean(0).numpy() for image in rows.read(range(len(rows)))]


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

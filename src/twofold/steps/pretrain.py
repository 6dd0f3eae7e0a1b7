"""Train a diffusion model on the images of a data set, without labels or with them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twofold import runs
from twofold.backbones import base as backbones
from twofold.datasets import base as datasets
from twofold.errors import BadRun, BadSetting
from twofold.records import Outcome
from twofold.runs import Run
from twofold.settings import Settings, setting
from twofold.steps import _course


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold pretrain`; durations are counted in images."""

    data: str = setting(help="data set to learn from; its labels are used only with --labels")
    out: Path = setting(help="folder of the run", identity=False)
    images: int = setting(100_000, help="length of training, in images seen", least=1, most=10**12)
    batch: int = setting(64, help="images per update, over all processes", least=1, most=10**6)
    lr: float = setting(2e-3, help="peak learning rate of AdamW", least=0)
    warmup: int = setting(3_000, help="images until the peak; then a cosine to zero", least=0, most=10**12)
    ema: int = setting(9_000, help="half-life of the weight average, in images", least=0, most=10**12)
    clip: float = setting(1.0, help="largest norm of the gradient; 0: no clipping", least=0)
    widths: tuple[int, ...] | None = setting(
        None,
        help="channels of each level, finest first; none: from the image size",
        least=1,
        most=16_384,
        repeats=True,
    )
    layers: int | None = setting(None, help="ResBlocks a level; none: 1 up to 16 pixels, else 2", least=1, most=64)
    size: int | None = setting(
        None, help="side of the training images in pixels; none: the data set's own", least=4, most=8192
    )
    objective: str = setting(
        "epsilon", help="what the network predicts: the noise, v, or EDM's residual", choices=("epsilon", "v", "edm")
    )
    schedule: str = setting(
        "linear", help="noise schedule of epsilon and v: linear 1e-4..0.02, or cosine", choices=("linear", "cosine")
    )
    learned_variance: bool = setting(False, help="epsilon and v: the network gives the variance too")
    labels: bool = setting(False, help="tell the network each image's class")
    label_dropout: float = setting(
        0.1, help="with --labels: share of images whose class is left out, for guidance", least=0, most=1
    )
    steps: int = setting(1000, help="noise steps T of epsilon and v", least=2, most=100_000)
    probe_every: int | None = setting(
        None, help="images between probe scores on val; 0: never; none: six in a run", least=0, most=10**12
    )
    save_every: int = setting(10_000, help="images between checkpoints", least=1, most=10**12, identity=False)
    log_every: int = setting(1_280, help="images between lines of metrics.jsonl", least=1, most=10**12)
    resume: bool = setting(
        False, help="insist on continuing: an error where there is nothing to continue", identity=False
    )
    on_error: str = setting("stop", help=datasets.ON_ERROR_HELP, choices=datasets.ON_ERROR, identity=False)
    seed: int = setting(0, help="seed of weights, order, steps and noise", least=0, most=2**63 - 1)
    device: str | None = setting(None, help="cpu, cuda, cuda:N or mps; none: a GPU where there is one", identity=False)
    precision: str = setting("fp32", help="number format of training", choices=("fp32", "bf16", "fp16"))


def run(config: Config) -> Outcome:
    """Train to the end, from the last checkpoint if there is one."""
    if config.resume and not (config.out / "config.toml").exists():
        raise BadRun(f"--resume: {config.out} holds no run to continue. Leave --resume out to start one.")
    backbones.place(config.device, "fp32")
    _check_objective(config)
    dataset = datasets.load(config.data, sealed=("test",), on_error=config.on_error)
    side = _side(config, dataset)
    inputs = {"data": dataset.fingerprint}
    with runs.opened(config.out, "pretrain", config, inputs, together=True) as run_:
        if done := run_.again(_course.told):
            return done
        dataset.tell_skipped()
        with _company(config):
            facts = {**_train(config, run_, dataset, side), **dataset.provenance}
        run_.finish(facts)
    return Outcome(facts, f"{config.out}: {_course.told(facts)}")


@contextmanager
def _company(config: Config) -> Iterator[None]:
    """The company of the other processes, if several were started; whose connection breaks is told in one line."""
    from torch import distributed

    try:
        yield
    except RuntimeError as error:
        if runs.processes() > 1 and (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise BadRun(
                f"Another of the {runs.processes()} processes that train {config.out} has ended; mend what it says, "
                "then run the same command again. It goes on from the last checkpoint."
            ) from error
        raise
    finally:
        # Left open, a connection may keep the others waiting, or end this process with a crash instead of its message.
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _train(config: Config, run_: Run, dataset: datasets.Dataset, side: int) -> dict[str, Any]:
    from twofold.steps._trainer import Recipe, Trainer

    trainer = Trainer(Recipe.of(config), dataset, side)
    probe_every = math.ceil(config.images / 6) if config.probe_every is None else config.probe_every
    facts = _course.train(replace(config, probe_every=probe_every), trainer, run_)
    return {**facts, **({"classes": list(dataset.classes)} if config.labels else {})}


def _check_objective(config: Config) -> None:
    """Refuse words of the ladder of whole steps beside EDM, which has none."""
    given = [("--schedule", config.schedule != "linear"), ("--learned-variance", config.learned_variance)]
    wrong = [flag for flag, there in given if there and config.objective == "edm"]
    if wrong:
        raise BadSetting(f"{wrong[0]} is for --objective epsilon and v; edm has no such schedule. Leave it out.")


def _side(config: Config, dataset: datasets.Dataset) -> int:
    side = config.size or dataset.image_size
    if side is None:
        raise BadSetting(
            f"The images of {config.data} have different sizes. Give --size, the side to train at in pixels."
        )
    levels = len(config.widths) if config.widths else 1
    if side % 2 ** (levels - 1):
        raise BadSetting(
            f"Images of {side} pixels cannot be halved {levels - 1} times, as {levels} --widths ask for. Give fewer."
        )
    return side

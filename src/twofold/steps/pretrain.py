"""Train a diffusion model on the images of a data set, without labels or with them."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold import files, runs
from twofold.backbones import base as backbones
from twofold.backbones.base import DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.errors import BadModel, BadRun, BadSetting
from twofold.records import Outcome
from twofold.runs import Run
from twofold.settings import Settings, as_mapping, setting
from twofold.steps import _course, _memory, _tracker

if TYPE_CHECKING:
    from twofold.steps._quality import Distance
    from twofold.steps._trainer import Trainer

log = logging.getLogger("twofold")

LEAST_TRACKED = 2  # images: one has no covariance


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold pretrain`; durations are counted in images."""

    data: str = setting(help="data set to learn from; its labels are used only with --labels")
    out: Path = setting(help="folder of the run", identity=False)
    images: int = setting(100_000, help="length of training, in images seen", least=1, most=10**12)
    batch: int = setting(64, help="images per update, over all processes", least=1, most=10**6)
    lr: float = setting(2e-3, help="peak learning rate of AdamW", least=0)
    warmup: int = setting(3_000, help="images until the peak; then a cosine to zero", least=0, most=10**12)
    ema: tuple[int, ...] = setting(
        (9_000,),
        help="half-lives of weight averages, in images; the first is the model, others are saved in ema-N/",
        least=0,
        most=10**12,
    )
    clip: float = setting(1.0, help="largest norm of the gradient; 0: no clipping", least=0)
    unet: str = setting(
        "plain",
        help="network: plain, adm (for 8, 28, 32, 64, 128 or 256 pixels), or FILE.json of a diffusers UNet2DModel",
    )
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
    augment: str = setting(
        "none",
        help="changed copies of images: none, flip (left and right), or edm (flips, turns, scales, shifts, and the "
        "network is told which, so that none is generated)",
        choices=("none", "flip", "edm"),
    )
    steps: int = setting(1000, help="noise steps T of epsilon and v", least=2, most=100_000)
    probe_every: int | None = setting(
        None, help="images between probe scores on val; 0: never; none: six in a run", least=0, most=10**12
    )
    tracker: str = setting(
        "none", help="where metrics.jsonl is shown too; its package must be installed",
        choices=("none", "tensorboard", "wandb", "trackio"), identity=False,
    )  # fmt: skip
    track: int = setting(
        0, help="images between both qualities of the network, on val: a Frechet distance of samples and a probe at "
        "several taps; the best of each is kept in best-fd/ and best-probe/; 0: never", least=0, most=10**12,
    )  # fmt: skip
    track_samples: int = setting(1_000, help="with --track: most samples, and images of val", least=2, most=10**6)
    track_features: str = setting("pixels", help="with --track: network that compares samples with val: any encoder")
    save_every: int = setting(10_000, help="images between checkpoints", least=1, most=10**12, identity=False)
    log_every: int = setting(1_280, help="images between lines of metrics.jsonl", least=1, most=10**12)
    resume: bool = setting(
        False, help="insist on continuing: an error where there is nothing to continue", identity=False
    )
    on_error: str = setting("stop", help=datasets.ON_ERROR_HELP, choices=datasets.ON_ERROR, identity=False)
    seed: int = setting(0, help="seed of weights, order, steps and noise", least=0, most=2**63 - 1)
    device: str | None = setting(None, help="cpu, cuda, cuda:N or mps; none: a GPU where there is one", identity=False)
    precision: str = setting(
        "fp32", help="number format of training; auto: bf16 where the hardware multiplies it fast, else fp32",
        choices=backbones.PRECISIONS,
    )  # fmt: skip
    accumulate: int = setting(
        1, help="parts that a batch is cut into, one after the other, for less memory", least=1, most=10**6,
        identity=False,
    )  # fmt: skip
    checkpointing: bool = setting(
        False, help="make activations again in the backward pass: less memory, same numbers, slower",
        identity=False,
    )  # fmt: skip
    compile: bool = setting(False, help="compile the network's ResBlocks with torch.compile", identity=False)
    memory: float | None = _memory.setting(_memory.IMAGES)


def run(config: Config) -> Outcome:
    """Train to the end, from the last checkpoint if there is one."""
    if config.resume and not (config.out / "config.toml").exists():
        raise BadRun(f"--resume: {config.out} holds no run to continue. Leave --resume out to start one.")
    _check_objective(config)
    _tracker.check(config.tracker)
    dataset = datasets.load(config.data, sealed=("test",), on_error=config.on_error)
    backbones.place(config.device, config.precision, config.compile)
    side = _side(config, dataset)
    _check_data(config, dataset)
    _check_network(config, dataset, side)
    inputs = {"data": dataset.fingerprint}
    if config.unet.endswith(".json"):
        inputs["unet"] = hashlib.sha256(Path(config.unet).read_bytes()).hexdigest()[:16]
    with runs.opened(config.out, "pretrain", config, inputs, together=True) as run_:
        if done := run_.again(_course.told):
            return done
        dataset.tell_skipped()
        from twofold.steps import _together

        with _together.company(config.out), _mended(config):
            facts = {**_train(config, run_, dataset, side), **dataset.provenance}
        run_.finish(facts)
    return Outcome(facts, f"{config.out}: {_course.told(facts)}")


@contextmanager
def _mended(config: Config) -> Iterator[None]:
    """What settings can mend is told in one line."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if told := _mendable(config, error):
            raise told from error
        raise


def _mendable(config: Config, error: Exception) -> BadSetting | None:
    """What can be mended by settings that do not change what is trained."""
    again = "run the same command again; it goes on from the last checkpoint"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate" in str(error):
        return BadSetting(
            f"Out of memory while training {config.out}. Give --accumulate {2 * config.accumulate}"
            f"{'' if config.checkpointing else ' or --checkpointing'}, which train the same, and {again}."
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        return BadSetting(f"--compile does not work here: {reason}. Leave it out, and {again}.")
    return None


def _train(config: Config, run_: Run, dataset: datasets.Dataset, side: int) -> dict[str, Any]:
    from twofold.steps._trainer import Recipe, Trainer

    trainer = Trainer(Recipe.of(config), dataset, side)
    distance = _distance(config, dataset) if run_.writes else None
    leave = partial(_save_averages, config, trainer, dataset)
    paced = replace(config, probe_every=_probe_every(config, dataset))
    with _tracker.opened(config.tracker if run_.writes else "none", run_.folder, as_mapping(config)) as tracker:
        trainer.tell = tracker.tell
        look = partial(_track, config, trainer, distance, run_.folder, dataset)
        facts = _course.train(paced, trainer, run_, _course.Extra(config.track, look, leave))
    return {**facts, **({"classes": list(dataset.classes)} if config.labels else {})}


def _probe_every(config: Config, dataset: datasets.Dataset) -> int:
    """Images between probes; 0 where there is nothing to tell apart, which is told of once."""
    from twofold.steps import _probing

    if not _probing.possible(dataset):
        log.info("%s has no two classes with images to judge on, so nothing is probed while training", config.data)
        return 0
    return math.ceil(config.images / 6) if config.probe_every is None else config.probe_every


def _distance(config: Config, dataset: datasets.Dataset) -> Distance | None:
    """What measures samples, where qualities are tracked."""
    if not config.track:
        return None
    from twofold.steps._quality import Distance

    return Distance(config.track_features, dataset, config.track_samples, config.seed, config.device)


def _track(
    config: Config, trainer: Trainer, distance: Distance | None, folder: Path, dataset: datasets.Dataset
) -> None:
    """Note both qualities, and keep the network where it is the best so far in one of them."""
    if distance is None:
        return
    from twofold.steps import _probing, _quality, _together

    metrics = folder / "metrics.jsonl"
    before = _course.notes(metrics)
    with trainer.averaged(), _together.alone():
        found: dict[str, Any] = {"fd": distance.of(trainer.backbone)}
        if _probing.possible(dataset):
            found["tapped"], found["tap"] = _quality.best_tap(trainer.backbone, dataset)
        about = {**_about(config, trainer, dataset), **found}
        if all(found["fd"] < r["fd"] for r in before if "fd" in r):
            _keep(trainer, folder / "best-fd", about)
        if "tapped" in found and all(found["tapped"] > r["tapped"] for r in before if "tapped" in r):
            _keep(trainer, folder / "best-probe", about)
    _course.append(trainer, metrics, {"images": trainer.seen, **found})


def _keep(trainer: Trainer, folder: Path, about: dict[str, Any]) -> None:
    """A model beside the run's own, with what it says of itself."""
    _course.save_pipeline(trainer, folder)
    files.write_json(folder / "finished.json", about)


def _save_averages(config: Config, trainer: Trainer, dataset: datasets.Dataset, folder: Path) -> None:
    """The first average is the run's model; each other one is a folder in it."""
    for which, images in enumerate(config.ema):
        with trainer.averaged(which):
            if which:
                _keep(trainer, folder / f"ema-{images}", _about(config, trainer, dataset))
            else:
                _course.save_pipeline(trainer, folder)


def _about(config: Config, trainer: Trainer, dataset: datasets.Dataset) -> dict[str, Any]:
    """What a model that is saved beside the run's own says of itself."""
    return {"images": trainer.seen, **({"classes": list(dataset.classes)} if config.labels else {})}


def _check_objective(config: Config) -> None:
    """Refuse words of the ladder of whole steps beside EDM, which has none, and of labels where none are told."""
    if not config.labels and config.label_dropout != type(config).label_dropout:
        raise BadSetting("--label-dropout leaves labels out, and none are told. Give --labels, or leave it out.")
    given = {
        "--schedule": config.schedule != "linear", "--learned-variance": config.learned_variance,
        "--steps": config.steps != type(config).steps,
    }  # fmt: skip
    wrong = [flag for flag, there in given.items() if there and config.objective == "edm"]
    if wrong:
        raise BadSetting(f"{wrong[0]} is for --objective epsilon and v; edm has no such schedule. Leave it out.")


def _check_data(config: Config, dataset: datasets.Dataset) -> None:
    """Refuse data that has not what is asked for beside its images, before a folder is made."""
    if config.labels:
        if len(dataset.classes) < 2:
            raise BadSetting(
                f"--labels: {config.data} has one class only, or none, so there is nothing to tell. Leave --labels "
                "out, or give one folder a class."
            )
        datasets.check_classes(dataset)
    if config.track and (held := len(dataset.build("val"))) < LEAST_TRACKED:
        raise BadSetting(
            f"--track compares samples with at least two images of val, and {config.data} has {held}. Give val more, "
            "or leave --track out."
        )


def _check_network(config: Config, dataset: datasets.Dataset, side: int) -> None:
    """Refuse a network that does not fit the images, before a folder is made."""
    from twofold.steps import _architecture
    from twofold.steps._trainer import Recipe

    _architecture.check(Recipe.of(config).wanted(side, dataset))
    if config.track and isinstance(backbones.load(config.track_features, weightless=True), DiffusionBackbone):
        raise BadModel(f"--track-features {config.track_features} is a diffusion model. Give an encoder, or pixels.")


def _side(config: Config, dataset: datasets.Dataset) -> int:
    side = config.size or dataset.image_size
    if side is None:
        raise BadSetting(
            f"The images of {config.data} have different sizes. Give --size, the side to train at in pixels."
        )
    return side

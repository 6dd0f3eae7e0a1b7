"""What `reproduce` was told, and what stands in the place of braces in its runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from twofold import runs
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset
from twofold.errors import BadRun, BadSetting
from twofold.steps import _course
from twofold.workflows import _sizes
from twofold.workflows._sizes import Sizes

DIGITS = "digits"
PIXELS = 16  # the largest side at which images themselves are compared, in three channels
LARGE = 64  # the largest side of images that heads of rows are shown as they are
Known = dict[tuple[str, str], Any]


class Asked(Protocol):
    """The settings of `twofold reproduce` that are read here."""

    # fmt: off
    @property
    def scale(self) -> str: ...
    @property
    def data(self) -> str | None: ...
    @property
    def other(self) -> str | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def gan(self) -> Path | None: ...
    @property
    def contrastive(self) -> Path | None: ...
    @property
    def fine_grained(self) -> Path | None: ...
    @property
    def out(self) -> Path: ...
    @property
    def minutes(self) -> float | None: ...
    @property
    def images(self) -> int: ...
    @property
    def size(self) -> int | None: ...
    @property
    def shots(self) -> int | None: ...
    @property
    def plan(self) -> bool: ...
    @property
    def seed(self) -> int: ...
    @property
    def device(self) -> str | None: ...
    @property
    def precision(self) -> str: ...
    # fmt: on


@dataclass(frozen=True)
class Given:
    """The data and the network, which can be read.

    Attributes:
        known: what stands in the place of braces, at the largest sizes.
        data, other: the data sets at hand; `other` is None where there is none.
        model: None where one is trained first.
    """

    known: Known
    data: Dataset
    other: Dataset | None
    model: Backbone | None


def check(config: Asked) -> Given:
    """Open the data sets and the model.

    Raises:
        UserError: one is not given or cannot be read.
    """
    small = config.scale == "small"
    if not small and not (config.model and config.data):
        raise BadSetting(
            "reproduce --scale paper needs --model adm:FILE (OpenAI's 256x256_diffusion_uncond.pt) and --data "
            "imagenet:DIR."
        )
    data = config.data or DIGITS
    dataset, other = datasets.load(data), datasets.load(config.other) if config.other else None
    _check_classes(small, dataset, other)
    _check_rivals(config, data, dataset)
    if small and config.model is None and (config.size or dataset.image_size) is None:
        raise BadSetting(f"The images of {data} have different sizes. Give --size, the side to train at in pixels.")
    model = None
    if config.model is not None:
        model = backbones.load(config.model, device=config.device, precision=config.precision)
        if not isinstance(model, DiffusionBackbone):
            raise BadSetting(
                f"--model {config.model} is no diffusion model: it has no noise steps, which the papers' tables are "
                "about. Give a run of pretrain or another diffusion model, or leave --model out."
            )
    known = _known(config, data, dataset, model) | of_sizes(config, Sizes(), data, dataset, other)[0]
    return Given(known, dataset, other, model)


def _check_classes(small: bool, *found: Dataset | None) -> None:
    """Refuse at once what no head could learn from."""
    for dataset in filter(None, found if small else ()):
        datasets.check_classes(dataset)


def _check_rivals(config: Asked, data: str, dataset: Dataset) -> None:
    """Refuse rivals of other images; a list of labels changes a data set's fingerprint and none of its images."""
    for name, folder in rivals(config).items():
        told = runs.read_config(folder)
        learned = str(told.get("settings", {}).get("data", data))
        same = told.get("inputs", {}).get("data") == dataset.fingerprint
        if not same and learned.partition("?")[0] != data.partition("?")[0]:
            raise BadRun(f"--{name} {folder} learned from {learned}, not from {data}. Give one of the same images.")


def _known(config: Asked, data: str, dataset: Dataset, model: Backbone | None) -> Known:
    """What does not hang on sizes."""
    shown = (dataset.image_size or LARGE + 1) <= LARGE
    known: dict[str, Any] = {
        "controls": ["pixels", "untrained"] if shown else ["untrained"],
        "data": data, "imagenet": data.partition(":")[2], "images": config.images, "seed": config.seed,
        "size": config.size, "device": config.device, "augment": "none" if data == DIGITS else ("crop", "flip"),
        "precision": None if config.precision == "auto" else config.precision, "flip": data != DIGITS,
        "features": str(config.out / "features"),
        "other_features": str(config.out / "other-features"),
    }  # fmt: skip
    known |= rivals(config)
    if model is not None:
        known["model"] = config.model
    if config.scale == "small" or config.fine_grained is not None:
        known["fine_grained"] = config.fine_grained
    return {(name, ""): value for name, value in known.items()}


def rivals(config: Asked) -> dict[str, Path]:
    """The runs of rivals that were given.

    Raises:
        BadRun: one is no finished run of that rival.
    """
    given = {name: getattr(config, name) for name in ("gan", "contrastive") if getattr(config, name) is not None}
    for name, folder in given.items():
        finished = (folder / "finished.json").exists()
        if not finished or runs.read_config(folder)["verb"] != f"rival {name}":
            raise BadRun(f"--{name} {folder} is no finished run of `twofold rival {name}`. Give one, or leave it out.")
    return given


def minutes(config: Asked) -> float:
    """How long the recipes may take."""
    if config.minutes is not None:
        return config.minutes
    return 12.0 if (config.data or DIGITS) == DIGITS else 60.0


def of_sizes(
    config: Asked, sizes: Sizes, data: str, dataset: Dataset, other: Dataset | None
) -> tuple[Known, list[_sizes.Part]]:
    """What hangs on sizes, and the parts of the data sets that are read."""
    shots = (10 if data == DIGITS else 0) if config.shots is None else config.shots
    known: dict[str, Any] = {
        "shots": shots, "num": sizes.num, "sampling_steps": sizes.steps, "seeds": sizes.seeds, "epochs": sizes.epochs,
        "trials": sizes.trials, "alike": sizes.alike, "updates": sizes.updates, "fewer_updates": sizes.updates // 2,
        "rival_images": _rival_images(config, sizes.rival), "pixels": f"pixels:{_side(config, sizes, dataset)}",
    }  # fmt: skip
    found = []
    for prefix, name, source in (("", data, dataset), ("other_", config.other, other)):
        if source is None or name is None:
            continue
        mapped = _sizes.part(source, name, sizes.rows, config.out / f"{prefix}rows.txt")
        own = shots if not prefix else 0
        # With few labels a class their heads draw them from all that the map is made of.
        labelled = mapped if own else _sizes.part(source, name, sizes.labels, config.out / f"{prefix}labels.txt")
        fewer = labelled.least if labelled.count[0] < mapped.count[0] else 0
        told = {"mapped": mapped.name, "labelled": labelled.name, "map_shots": own or fewer}
        known |= {prefix + key: value for key, value in told.items()}
        found += [mapped, labelled]
    return {(key, ""): value for key, value in known.items()}, found


def _side(config: Asked, sizes: Sizes, dataset: Dataset) -> int:
    """At which images themselves are compared: as many numbers as a covariance can be found of."""
    there = min(sizes.num, len(dataset.build("train")))
    own = config.size or dataset.image_size or PIXELS
    return max((side for side in (4, 8, PIXELS) if side <= own and 3 * side**2 < there), default=2)


def _rival_images(config: Asked, share: float) -> int | None:
    """As many as the model saw, or a part; None leaves it to the rival, which asks the model's run."""
    seen = config.images if config.model is None else _course.images_seen(config.model)
    if seen is None:
        seen = config.images
    return max(1, round(share * seen))

"""What `reproduce` was told, and what stands in the place of braces in its runs."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from twofold import files, runs
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset
from twofold.errors import BadRun, BadSetting
from twofold.workflows import _costs, _sizes
from twofold.workflows._costs import Meter
from twofold.workflows._planned import Part
from twofold.workflows._sizes import Sizes

log = logging.getLogger("twofold")

DIGITS = "digits"
PIXELS = 16  # the largest side at which images themselves are compared, in three channels
LARGE = 64  # the largest side of images that heads of rows are shown as they are
REMEMBERED = "sizes.json"
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
    def minutes(self) -> float: ...
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


@dataclass(frozen=True)
class Sized:
    """What stands in the place of braces, in sizes that fit.

    Attributes:
        known: it.
        meter: the network and this machine's speed.
        parts: of the data sets, whose lists are to be written.
        remembered: where, for whom and which sizes are kept; None where there is nothing to keep.
        words: what was cut to fit, empty where nothing was.
    """

    known: Known
    meter: Meter
    parts: tuple[_sizes.Part, ...] = ()
    remembered: tuple[Path, dict[str, Any], Sizes] | None = None
    words: str = ""

    def keep(self) -> None:
        """Leave lists and sizes, so that the same command goes on with the same runs."""
        for part in self.parts:
            part.write()
        if self.remembered is not None:
            _sizes.remember(*self.remembered)


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
    if small and config.model is None and (config.size or dataset.image_size) is None:
        raise BadSetting(f"The images of {data} have different sizes. Give --size, the side to train at in pixels.")
    model = None
    if config.model is not None:
        model = backbones.load(config.model, device=config.device, precision=config.precision)
    known = _known(config, data, dataset, model) | _of_sizes(config, Sizes(), data, dataset, other)[0]
    return Given(known, dataset, other, model)


def _check_classes(small: bool, *found: Dataset | None) -> None:
    """Refuse at once what no head could learn from."""
    for dataset in filter(None, found if small else ()):
        datasets.check_classes(dataset)


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


def _of_sizes(
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
    return max(2, *(side for side in (4, 8, PIXELS) if side <= own and 3 * side**2 < there), 2)


def _rival_images(config: Asked, share: float) -> int | None:
    """As many as the model saw, or a part; None leaves it to the rival, which asks the model's run."""
    seen = config.images if config.model is None else images_seen(config.model)
    if seen is None:
        seen = config.images
    return max(1, round(share * seen))


def images_seen(model: str) -> int | None:
    """How many images a run of `pretrain` has seen; None where it is none."""
    path = Path(model.partition("?")[0].removeprefix("run:")) / "finished.json"
    found = files.read_json(path, {}, {"images": int}) if path.is_file() else {}
    return int(found["images"]) if "images" in found else None


def sized(config: Asked, given: Given, everything: Sequence[Part]) -> Sized:
    """Find the sizes that fit --minutes, by all recipes, so that runs which recipes share stay the same."""
    if config.scale != "small":
        measure = config.plan
        meter = _costs.meter(given.model, None, measure=measure)
        return Sized(given.known, meter)
    meter = _costs.meter(*_networks(config, given), measure=True)
    counted = [part for part in everything if part.verb != "pretrain"]
    path, asked = config.out / REMEMBERED, _asked(config, given)

    def with_sizes(sizes: Sizes) -> tuple[Known, list[_sizes.Part]]:
        known, parts = _of_sizes(config, sizes, config.data or DIGITS, given.data, given.other)
        meter.counts.update({part.name: (part.count, part.classes) for part in parts})
        return given.known | known, parts

    def seconds(sizes: Sizes) -> float:
        return _costs.total(_costs.estimate(counted, with_sizes(sizes)[0], meter)) or 0.0

    found = _sizes.remembered(path, asked)
    if found is None:
        found, about = _sizes.fitting(seconds, config.minutes, _told(config))
        if about > 60 * config.minutes:
            log.warning("the smallest runs are taken, and may need %s", _costs.duration(about))
    if cut := _cut(config, found):
        log.info("%s", cut)
    known, parts = with_sizes(found)
    return Sized(known, meter, tuple(parts), (path, asked, found), cut)


def _told(config: Asked) -> dict[str, Any]:
    """Sizes that were asked for."""
    return {name: getattr(config, name) for name in ("seeds", "epochs", "num") if getattr(config, name) is not None}


def _asked(config: Asked, given: Given) -> dict[str, Any]:
    """What the sizes hang on, apart from the machine."""
    names = ("minutes", "images", "size", "shots", "seeds", "epochs", "num", "other", "gan", "contrastive")
    of_model = given.model.identity if given.model is not None else None
    told = {name: getattr(config, name) for name in names}
    return {name: str(v) if isinstance(v, Path) else v for name, v in told.items()} | {
        "data": given.data.fingerprint,
        "model": of_model,
    }


def _cut(config: Asked, sizes: Sizes) -> str:
    """What was cut, in words; empty where nothing was."""
    whole = vars(replace(Sizes(), **_told(config)))
    told = [f"{_sizes.WORDS[name]} {value:g}" for name, value in vars(sizes).items() if value != whole[name]]
    return f"Cut to fit --minutes {config.minutes:g}: {', '.join(told)}." if told else ""


def _networks(config: Asked, given: Given) -> tuple[Backbone, Backbone]:
    """The network as features are read and as it is trained; before it is there, one of its shape."""
    if config.model is not None and given.model is not None:
        placement = getattr(given.model, "placement", None)
        if placement is None or "float32" in str(placement.dtype):
            return given.model, given.model
        return given.model, backbones.load(config.model, device=config.device, precision="fp32")
    import torch

    from twofold.steps import _architecture, _objectives, pretrain
    from twofold.steps._trainer import Recipe

    recipe = Recipe.of(pretrain.Config(config.data or DIGITS, config.out / "model", size=config.size))
    side = config.size or given.data.image_size
    assert side is not None
    objective = _objectives.make(recipe.objective, recipe.schedule, recipe.steps, recipe.learned_variance)
    unet = _architecture.network(recipe.wanted(side, given.data))
    found = []
    for how in (config.precision, "fp32"):
        placement = backbones.place(config.device, how)
        placed = copy.deepcopy(unet)
        # diffusers' own `to` warns of other precisions.
        torch.nn.Module.to(placed, placement.device, placement.dtype)
        torch.nn.Module.to(placed, memory_format=torch.channels_last)
        found.append(objective.backbone(placed, placement))
    return found[0], found[1]

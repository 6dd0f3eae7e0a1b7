"""What `finetune` leaves, as a classifier of images: a network, and all that was trained through it or beside it.

tuned.json         the network and its fingerprint, the cells, the mode, the head, the labels
best.safetensors   the weights, written before it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twofold import files, runs
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone
from twofold.datasets.base import Rows
from twofold.errors import BadModel, BadRun, UserError
from twofold.heads import base as heads
from twofold.records import Cell
from twofold.steps import _images

if TYPE_CHECKING:
    from torch import Tensor

    from twofold.steps._through import Through

FILE, VERB = "tuned.json", "finetune"
NEEDS = {"model": str, "fingerprint": str, "cells": list, "mode": str, "head": str, "seed": int, "batch": int,
         "precision": str, "labels": list}  # fmt: skip
ADVICE = "Make its run again in another folder."


@dataclass(frozen=True, eq=False)
class Tuned:
    """What turns images into probabilities.

    Attributes:
        backbone, network: what prepares images, and what answers.
        labels: what each of the K classes is called.
        seed, batch: of the noise; images a forward pass.
        lower: whether the network computes in bfloat16 while its weights are in single precision.
    """

    backbone: Backbone
    network: Through
    labels: tuple[str, ...]
    seed: int
    batch: int
    lower: bool

    def probabilities(self, images: Sequence[Any]) -> NDArray[np.float64]:
        """Probabilities of images that `_images.listed` gave, float64 [N, K]; an image's noise is of its own pixels."""
        return np.concatenate([self.of_rows(_rows(pictures)) for pictures in _images.groups(images)])

    def of_rows(self, rows: Rows) -> NDArray[np.float64]:
        """Probabilities of rows whose images have numbers of their own, float64 [N, K]."""
        from twofold.steps import _tuner
        from twofold.steps._epochs import Stream

        stream = Stream(self.backbone, rows, self.seed, self.batch)
        return _tuner.probabilities(_tuner.scores(self.network, stream, self.lower))


def _rows(pictures: Sequence[Tensor]) -> Rows:
    """Pictures that no data set numbers."""
    index = np.array([_images.own_number(one) for one in pictures], dtype=np.int64)
    return Rows(np.zeros_like(index), index, lambda wanted: [pictures[int(k)] for k in wanted])


def is_run(folder: Path) -> bool:
    """Whether a folder is a run of `finetune`, finished or not."""
    return (folder / "config.toml").is_file() and runs.read_config(folder)["verb"] == VERB


def loaded(model: str, mode: str, device: str | None, precision: str) -> tuple[Backbone, bool]:
    """The network as `mode` trains it, and whether it computes in bfloat16 all the same.

    Weights that are trained stay in single precision, whatever they compute in.
    """
    full = mode == "full"
    lower = full and backbones.place(device, precision).dtype.itemsize == 2
    return backbones.load(model, device=device, precision="fp32" if full else precision), lower


def load(folder: Path, *, model: str | None = None, device: str | None = None, batch: int | None = None) -> Tuned:
    """Read a finished run of `finetune`; nothing in it is executed.

    Args:
        folder: the run.
        model: the MODEL string of the network that was tuned, where it has moved since.
        device, batch: where it computes, and images a forward pass.

    Raises:
        BadRun: the run is not finished, or is damaged.
        BadModel: the network is not the one that was tuned.
    """
    from twofold.steps import _tuner

    if not (folder / "finished.json").exists():
        raise BadRun(f"{folder} is a run of finetune that is not finished. Run its command again; it goes on.")
    if not (folder / FILE).exists():
        raise BadRun(f"{folder} has no {FILE}: an earlier version of twofold made it. {ADVICE}")
    found = files.read_json(folder / FILE, NEEDS, advice=ADVICE)
    backbone, lower = loaded(model or found["model"], found["mode"], device, found["precision"])
    if backbone.fingerprint != found["fingerprint"]:
        raise BadModel(
            f"{model or found['model']} is not the network that {folder} tuned: its fingerprint is "
            f"{backbone.fingerprint}, not {found['fingerprint']}. Bring that network back, "
            "or say with --model where it is."
        )
    with files.undamaged(folder / FILE, ADVICE):
        network = _network(found, backbone)
    _tuner.load_best(network, folder)
    labels = tuple(str(label) for label in found["labels"])
    return Tuned(backbone, network, labels, found["seed"], batch or found["batch"], lower)


def _network(found: dict[str, Any], backbone: Backbone) -> Through:
    """The network that a tuned.json tells of, before its weights."""
    from twofold.heads._trained import Trained
    from twofold.steps import _through

    if found["mode"] not in _through.MODES:
        raise ValueError(f"it has no mode {found['mode']!r}")
    if not found["cells"]:
        raise ValueError("it names no cells")
    try:
        head, cells = heads.load(found["head"]), [Cell.parse(str(one)) for one in found["cells"]]
        for cell in cells:
            backbone.block(cell.tap.block)
            backbone.check_step(cell.tap.t)
        pairs = _through.mirror_pairs(backbone) if found["mode"] == "difffeed" else {}
    except UserError as error:
        raise ValueError(str(error)) from error
    if not isinstance(head, Trained):
        raise ValueError(f"its head {found['head']} is not trained by gradients")
    return _through.Through(backbone, cells, head, len(found["labels"]), found["mode"], found["seed"], pairs)

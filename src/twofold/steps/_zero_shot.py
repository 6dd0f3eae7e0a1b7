"""The diffusion classifier: no head is trained; the class that explains an image's noise best is the answer.

Li et al. 2023 (arXiv 2303.16203), Clark and Jaini 2023 (arXiv 2303.15233). An image is noised, the network removes the
noise once for every class that it can be told, and errors are compared. All classes see the same noise, so that
differences are of classes alone. Most classes are out of the question soon: after each stage the better ones go on
with twice the noise samples (sequential halving, Karnin et al. 2013).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twofold import files, noise, runs
from twofold.backbones import base as backbones
from twofold.backbones.base import DiffusionBackbone
from twofold.datasets.base import Dataset, Rows
from twofold.errors import BadSetting
from twofold.records import Cell
from twofold.steps import _batching, _labels, _rows
from twofold.steps._cells import steps as noise_steps
from twofold.steps._trials import Predictions

if TYPE_CHECKING:
    from torch import Tensor

NAME = "diffusion"
# The ends of the noise that is explained by default, as noise-to-signal ratios: with less there is nothing to
# explain, with more no class is left to be seen.
SIGMAS = (0.2, 5.0)
ANSWER = ("predicted", "confidence", "rank")
CHUNK = 256  # images whose answers are kept at once


@dataclass(frozen=True)
class Stages:
    """How many noise samples are seen, and by which classes.

    Attributes:
        steps: the native step of each noise sample.
        plan: for each stage, how many noise samples have been seen at its end, and how many classes then go on.
    """

    steps: tuple[float, ...]
    plan: tuple[tuple[int, int], ...]

    def passes(self, classes: int) -> int:
        """Forward passes an image."""
        seen, left, total = 0, classes, 0
        for upto, kept in self.plan:
            total += (upto - seen) * left
            seen, left = upto, kept
        return total


@dataclass(frozen=True)
class Whole:
    """One line of a probe's table: a network that classifies as a whole. See `_rows.Row`."""

    name: str
    backbone: DiffusionBackbone
    stages: Stages
    control: bool
    cells: tuple[Cell, ...] = ()

    @property
    def passes(self) -> int:
        """Forward passes an image."""
        return self.stages.passes(self.backbone.classes)

    @property
    def about(self) -> dict[str, Any]:
        """What a score says of it."""
        return {
            "row": self.name, "control": self.control, "model": self.backbone.name, "block": "output", "t": None,
            "pool": 0, "noises": len(self.stages.steps), "stages": len(self.stages.plan), "passes": self.passes,
            "sigmas": sorted(float(self.backbone.sigma(t) or 0) for t in set(self.stages.steps)),
        }  # fmt: skip


def check(config: _rows.Place, heads: Sequence[str], shots: int) -> None:
    """Refuse what means nothing where no feature is read and no head is trained.

    Raises:
        BadSetting: the first setting that does.
    """
    if len(heads) > 1:
        raise BadSetting(f"The head {NAME} is the model itself and reads no features. Probe it in a run of its own.")
    unused = {
        "--choice": config.choice, "--block": config.block, "--pool": config.pool, "--vote": config.vote > 1,
        "--views": config.views, "--label": config.label is not None, "--draws": config.draws > 1, "--shots": shots,
    }  # fmt: skip
    for flag, given in unused.items():
        if given is not None and given is not False and given != 0:
            raise BadSetting(
                f"The head {NAME} reads no features and trains nothing, so {flag} means nothing to it. Leave it out."
            )
    if config.workers > 1 or config.ray:
        raise BadSetting(f"The head {NAME} works in one process. Leave --workers and --ray out.")


def rows(config: _rows.Place, dataset: Dataset, noises: int, stages: int) -> Iterator[Whole]:
    """The model, then the same network untrained where it is a control.

    Raises:
        BadSetting: the model cannot be told the classes of the data.
    """
    _labels.whole(dataset, "test")
    name = backbones.parse(config.model)
    untrained = "untrained" in config.controls and not name.untrained
    for model in (config.model, *([str(replace(name, untrained=True))] if untrained else [])):
        backbone = config.load(model)
        if not isinstance(backbone, DiffusionBackbone) or not backbone.classes:
            raise BadSetting(
                f"{model} cannot be told a class, which the head {NAME} needs. Give a class-conditional diffusion "
                "model, or a head that learns from features: --head ridge with --choice."
            )
        _check_classes(model, backbone, dataset)
        control = model != config.model
        yield Whole("untrained" if control else model, backbone, _stages(config, backbone, noises, stages), control)


def _check_classes(model: str, backbone: DiffusionBackbone, dataset: Dataset) -> None:
    """Raise `BadSetting` where class k of the data is not class k of the model, as far as names can tell."""
    if backbone.classes != len(dataset.classes):
        raise BadSetting(
            f"{model} knows {backbone.classes} classes and {dataset.name} has {len(dataset.classes)}; the head "
            f"{NAME} takes class k of the data for class k of the model. Give data of the model's own classes."
        )
    # Other names may mean the same classes, as ImageNet's words and folders do; the same names elsewhere do not.
    if sorted(backbone.class_names) == sorted(dataset.classes):
        for k, (own, theirs) in enumerate(zip(backbone.class_names, dataset.classes, strict=True)):
            if own != theirs:
                raise BadSetting(
                    f"Of {model} class {k} is {own!r}, of {dataset.name} it is {theirs!r}; the head {NAME} takes class "
                    "k of the data for class k of the model. Give data with the classes in the model's order."
                )


def _stages(config: _rows.Place, backbone: DiffusionBackbone, noises: int, stages: int) -> Stages:
    """The steps of all noise samples, and how classes are left out: evenly in the logarithm of their number."""
    if config.t is None and config.sigma is None:
        low, high = map(math.log, SIGMAS)
        places = (low + (_spread(k) + 0.5 / noises) % 1 * (high - low) for k in range(noises))
        steps = [backbone.step(math.exp(place)) for place in places]
    else:
        given = [t for t in noise_steps(backbone, config.t, config.sigma) if t is not None]
        steps = [given[k % len(given)] for k in range(noises)]
    plan: dict[int, int] = {}
    for stage in range(1, stages + 1):
        # A later stage that sees nothing more takes the place of the one before.
        plan[max(noises >> (stages - stage), 1)] = math.ceil(backbone.classes ** (1 - stage / stages) - 1e-9)
    return Stages(tuple(steps), tuple(plan.items()))


def _spread(k: int) -> float:
    """The k-th number of van der Corput's sequence: the first few, however many, lie evenly in 0..1."""
    return sum(int(bit) * 0.5 ** (place + 1) for place, bit in enumerate(reversed(f"{k:b}")))


def write(config: _rows.Place, path: Path, dataset: Dataset, row: Whole, seeds: Sequence[int]) -> None:
    """Write what a network answers on test, with the noise of each seed, as `Predictions`.

    Args:
        config: its batch.
        path: the file; answers are kept beside its folder on the way, and taken from there when it goes on.
        dataset: whose test images are classified.
        row: the network.
        seeds: of the noise.
    """
    test, kept = dataset.build("test"), path.parent.parent / "answers" / path.stem
    size = config.batch or _batching.choose(row.backbone, len(row.backbone.blocks))
    found = [_answers(row, test, seed, size, kept / str(seed)) for seed in seeds]
    joined = {name: np.stack([one[name] for one in found]) for name in ANSWER}
    predictions = Predictions(
        test.index, test.labels, np.array(seeds), **joined, classes=np.array(row.backbone.classes),
        val=np.full(len(seeds), np.nan), chosen=np.array(["{}"] * len(seeds)),
    )  # fmt: skip
    predictions.save(path)
    shutil.rmtree(kept.parent)


def _answers(row: Whole, test: Rows, seed: int, size: int, folder: Path) -> dict[str, NDArray[Any]]:
    """Answers on all images with one seed, chunk by chunk."""
    chunks = [np.arange(s, min(s + CHUNK, len(test))) for s in range(0, len(test), CHUNK)]
    with runs.progress(len(test), f"{NAME}, {row.name}") as bar:
        for number, positions in enumerate(chunks):
            path = folder / f"{number}.npz"
            if not path.exists():
                x = row.backbone.preprocess(test.read(positions))
                told = explain(row.backbone, x, test.index[positions], row.stages, seed, size)
                with files.replacing(path) as temporary:
                    np.savez(temporary, **answer(*told, test.labels[positions]), allow_pickle=False)
            bar.advance(len(positions))
    parts = [_read(folder / f"{number}.npz") for number in range(len(chunks))]
    return {name: np.concatenate([part[name] for part in parts]) for name in ANSWER}


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with files.undamaged(path, "Delete it and run the same command again."), np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in ANSWER}


def explain(
    backbone: DiffusionBackbone, x: Tensor, index: NDArray[np.int64], stages: Stages, seed: int, size: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How badly each class explains the noise of each image.

    Args:
        backbone: the network.
        x: preprocessed images [B, C, h, w].
        index: int64 [B], their numbers; noise belongs to them.
        stages: noise samples and classes.
        seed: of the noise.
        size: pairs of image and class a forward pass.

    Returns:
        the mean squared distance to the noise, summed over an image's numbers, beyond that of the best class of the
        same stage, float64 [B, K]; and the last stage that a class took part in, int64 [B, K].
    """
    import torch

    count, classes = len(x), backbone.classes
    left = torch.arange(classes, device=x.device).expand(count, classes)
    total = torch.zeros(count, classes, dtype=torch.float64, device=x.device)
    beyond, last = total.clone(), torch.zeros_like(total, dtype=torch.int64)
    seen = 0
    for stage, (upto, kept) in enumerate(stages.plan):
        for draw in range(seen, upto):
            own = torch.from_numpy(noise.normal(seed, index, x.shape[1:], draw=draw, purpose=noise.CLASSES))
            total.scatter_add_(1, left, _errors(backbone, x, own.to(x.device), stages.steps[draw], left, size))
        seen = upto
        mean = total.gather(1, left) / seen
        beyond.scatter_(1, left, mean - mean.min(1, keepdim=True).values)
        last.scatter_(1, left, torch.full_like(left, stage))
        left = left.gather(1, mean.argsort(1)[:, :kept])
    return beyond.cpu().numpy(), last.cpu().numpy()


def _errors(backbone: DiffusionBackbone, x: Tensor, own: Tensor, t: float, left: Tensor, size: int) -> Tensor:
    """Squared distances of the network's noise to the noise that was added, for the classes left: float64 [B, k]."""
    import torch

    noised, ratio = backbone.noised(x, t, own), float(backbone.sigma(t) or 0)
    image = torch.arange(len(x), device=x.device).repeat_interleave(left.shape[1])
    parts = []
    for rows_, labels in zip(torch.split(image, size), torch.split(left.reshape(-1), size), strict=True):
        # The noise that is left over is the clean image's error over sigma.
        error = (backbone.denoise(noised[rows_], t, labels) - x[rows_]) / ratio
        parts.append(error.double().square().flatten(1).sum(1))
    return torch.cat(parts).view(left.shape)


def answer(beyond: NDArray[np.float64], last: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The likeliest class, its probability (Li et al. 2023, eq. 7) and the right one's rank; see `Predictions`.

    Classes that went further are likelier than those that were left out before.
    """
    first = np.lexsort((beyond, -last), axis=1)[:, 0]
    rows_ = np.arange(len(labels))
    chances = np.exp(-beyond)
    own, stage = beyond[rows_, labels][:, None], last[rows_, labels][:, None]
    before = (last > stage) | ((last == stage) & (beyond <= own))
    return {
        "predicted": first.astype(np.int64),
        "confidence": (chances[rows_, first] / chances.sum(1)).astype(np.float32),
        "rank": before.sum(1) - 1,
    }

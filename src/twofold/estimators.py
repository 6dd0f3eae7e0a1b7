"""The verbs' insides in scikit-learn's shape: a transformer and a classifier of images.

    features = DiffusionFeatures("run:runs/digits", "mid", t=30, pool=2)
    classifier = DiffusionClassifier("run:runs/digits", "mid", t=30, head="ridge").fit(images, labels)

Images are uint8 arrays [N, H, W, 3], [N, 3, H, W] or [N, H, W], or lists of arrays, PIL images or paths. An image's
noise depends on the seed and on its own pixels: the same image has the same noise in any order, batch or fold. Features
are remembered for each image, so fits that share a network, a place and images read them once.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.errors import BadData, BadModel, BadSetting
from twofold.heads import base as heads
from twofold.heads.base import Head
from twofold.records import Cell
from twofold.settings import setting
from twofold.steps import _cells, _classifier, _images, _remembered
from twofold.steps._classifier import Classifier
from twofold.steps._fill import Reading


@dataclass(frozen=True)
class Checked(Reading):
    """What an estimator was told, converted and checked when it is fitted."""

    model: str = setting(help=backbones.MODEL_HELP)
    block: str | None = setting(None, help="block number or name")
    t: float | None = setting(None, help="noise step in the model's own unit")
    sigma: float | None = setting(None, help="noise-to-signal ratio instead of t")
    pool: int | None = setting(None, help="side of the grid that maps are averaged to", least=0, most=8192)
    memory: Path | None = setting(None, help="folder in which features are kept")

    def cell(self, backbone: Backbone, usual_pool: int) -> Cell:
        """The one place that was asked for."""
        if self.block == "all" or (self.block is None and len(backbone.blocks) > 1):
            raise BadSetting(
                f"Where is {self.model} to be read? Give one block: `twofold blocks {self.model}` lists them, "
                "`twofold select` finds the best."
            )
        if isinstance(backbone, DiffusionBackbone) and self.t is None and self.sigma is None:
            raise BadSetting(f"{self.model} is a diffusion model: give t or sigma with the block.")
        t, sigma = (None if v is None else (v,) for v in (self.t, self.sigma))
        pool = usual_pool if self.pool is None else self.pool
        return _cells.asked(backbone, (self.block or "1",), _cells.steps(backbone, t, sigma), (pool,))[0]


@dataclass(eq=False, repr=False)
class _Reader(BaseEstimator):  # type: ignore[misc]
    """The constructor arguments that both estimators have; nothing is looked at before `fit`."""

    model: str
    block: int | str | None = None
    _: KW_ONLY
    t: float | None = None
    sigma: float | None = None
    pool: int | None = None
    draws: int = 1
    label: int | None = None
    dtype: str = "float16"
    seed: int = 0
    batch: int | None = None
    device: str | None = None
    precision: str = "auto"
    compile: bool = False
    memory: str | Path | None = None

    def _checked(self) -> Checked:
        return Checked(**{f.name: getattr(self, f.name) for f in fields(Checked) if hasattr(self, f.name)})

    def __sklearn_tags__(self) -> Any:
        """Images are no tables of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags


@final
@dataclass(eq=False, repr=False)
class DiffusionFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _Reader):  # type: ignore[misc]
    """Images to features of one block at one noise step, float32 [N, D], or maps [N, C, h, w] with pool 0.

    Args:
        model: MODEL string, as everywhere.
        block: number or name; may be left out where there is only one.
        t, sigma: noise step, in the model's own unit or as noise-to-signal ratio; one of them for a diffusion model.
        pool: side of the grid that maps are averaged to; None: 1.
        draws: noise samples an image, averaged.
        label: class number told to a class-conditional model.
        dtype: number format in which features are kept.
        seed: of the noise.
        batch: images a forward pass; None: what memory allows.
        device, precision, compile: where and how the network computes.
        memory: folder in which features are kept for later processes; None: this process's memory alone.

    Attributes:
        cell_: the place that is read, for instance `b7_t50_p2`.
        fingerprint_: of the network.
    """

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Load the network and find the place; nothing is learned from the images."""
        _images.listed(X)
        checked = self._checked()
        backbone = _remembered.load(checked.model, checked.alone)
        cell = checked.cell(backbone, usual_pool=1)
        self.cell_, self.fingerprint_ = str(cell), backbone.fingerprint
        self._n_features_out = int(np.prod(_cells.shape(backbone, cell)))
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """The features of images; of an image that was seen before they are not read again."""
        check_is_fitted(self, "cell_")
        checked, images = self._checked(), _images.listed(X)
        backbone = _remembered.load(checked.model, checked.alone)
        if backbone.fingerprint != self.fingerprint_:
            raise BadModel(f"{self.model} is another network now than when fit was called. Call fit again.")
        return _remembered.features(images, backbone, Cell.parse(self.cell_), checked.alone, checked.memory)[0]


@final
@dataclass(eq=False, repr=False)
class DiffusionClassifier(ClassifierMixin, _Reader):  # type: ignore[misc]
    """Images to classes: features as `DiffusionFeatures` reads them, then a head.

    What the head leaves open (a strength, a rate) is chosen on a part of each class that is held out; then it is fitted
    again on all images. Which images are held out depends on their pixels alone.

    Args:
        model, block, t, sigma, draws, label, dtype, seed, batch, device, precision, compile, memory: see
            `DiffusionFeatures`.
        pool: None: what the head reads, 1 for rows and 0 for maps.
        head: a name, with settings behind it where they are wanted: `attention?blocks=2`.
        val: share of each class held out for the choice; 0: nothing is chosen.

    Attributes:
        classes_: labels [K], in the order of the columns of `predict_proba`.
        head_: the fitted head; `head_.choice` is what was chosen.
        cell_: the place that is read, for instance `b7_t50_p2`.
        fingerprint_: of the network.
    """

    _: KW_ONLY
    head: str = "logistic"
    val: float = 0.2

    def fit(self, X: Any, y: ArrayLike) -> Self:  # noqa: N803
        """Fit the head on images and labels [N], which may be numbers or text."""
        checked, head = self._checked(), heads.load(self.head)
        usual = _usual_pool(head, checked.pool)
        if not (isinstance(self.val, (int, float)) and 0 <= self.val < 1):
            raise BadSetting(f"val must be a share from 0 to below 1, not {self.val!r}.")
        images = _images.listed(X)
        classes, positions = _labels(y, len(images))
        backbone = _remembered.load(checked.model, checked.alone)
        cell = checked.cell(backbone, usual)
        x, numbers = _remembered.features(images, backbone, cell, checked.alone, checked.memory)
        self.head_ = _fitted(head, x, positions, _held_out(numbers, positions, self.val))
        self.classes_, self.cell_, self.fingerprint_ = classes, str(cell), backbone.fingerprint
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Probabilities float64 [N, K], columns as in `classes_`."""
        images = _images.listed(X)
        classifier = self._classifier()
        return classifier.probabilities(images, self._checked().memory)

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """The likeliest label of each image [N]."""
        likeliest: NDArray[Any] = self.predict_proba(X).argmax(1)
        labels: NDArray[Any] = self.classes_[likeliest]
        return labels

    def save(self, folder: str | Path) -> None:
        """Write the fitted classifier into a folder: safetensors and JSON, no pickle; `twofold predict` reads it."""
        _classifier.save(self._classifier(), Path(folder))

    @classmethod
    def load(cls, folder: str | Path, *, model: str | None = None, device: str | None = None) -> DiffusionClassifier:
        """A fitted classifier from a folder that `save` or `twofold probe` wrote; nothing in it is executed.

        Args:
            folder: the folder.
            model: the MODEL string of the same network, where it has moved since.
            device: where it computes from now on.

        Raises:
            BadRun: no classifier, or a damaged one.
            BadModel: the network is not the one it was fitted on.
        """
        found = _classifier.load(Path(folder), model=model, device=device)
        how = {f.name: getattr(found.reading, f.name) for f in fields(Reading) if f.name in cls.__dataclass_fields__}
        tap = found.cell.tap
        made = cls(found.model, tap.block, t=tap.t, pool=found.cell.pool, head=found.name, **how)
        made.classes_, made.head_ = found.labels, found.head
        made.cell_, made.fingerprint_ = str(found.cell), found.fingerprint
        return made

    def _classifier(self) -> Classifier:
        check_is_fitted(self, "head_")
        checked, cell = self._checked(), Cell.parse(self.cell_)
        return Classifier(
            checked.model, self.fingerprint_, cell, checked.alone, self.head, self.head_, self.classes_
        )  # fmt: skip


def _usual_pool(head: Head, pool: int | None) -> int:
    """The pool where none is given; a given one must be what the head reads."""
    if head.several:
        raise BadSetting(
            "This head reads several maps side by side; a classifier reads one place. `twofold probe` has it."
        )
    if pool is not None and head.maps is not (pool == 0):
        wanted = "maps: give pool=0, or leave pool out" if head.maps else "pooled rows: give pool=1 or more"
        raise BadSetting(f"This head reads {wanted}.")
    return 0 if head.maps else 1


def _labels(y: ArrayLike, count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Classes [K], ascending, and the position of each image's own in them, int64 [N]."""
    if y is None:
        raise BadData("A classifier requires y to be passed, but the target y is None. Give a label for each image.")
    labels = column_or_1d(y, warn=True)
    check_classification_targets(labels)
    if len(labels) != count:
        raise BadData(f"There are {count} images and {len(labels)} labels. Give one label an image.")
    classes, positions = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise BadData(f"All {len(labels)} labels are of one class; a classifier needs two or more.")
    return classes, positions.astype(np.int64)


def _held_out(numbers: NDArray[np.int64], positions: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which images are for the choice, bool [N]: of each class a share, the largest by their own numbers."""
    held = np.zeros(len(numbers), dtype=bool)
    for position in np.unique(positions):
        members = np.flatnonzero(positions == position)
        count = min(round(share * len(members)), len(members) - 1)
        held[members[np.argsort(numbers[members])][len(members) - count :]] = True
    return held


def _fitted(head: Head, x: NDArray[np.float32], y: NDArray[np.int64], held: NDArray[np.bool_]) -> Head:
    """Choose on what is held out, then fit on everything."""
    if held.any():
        head = head.fit(x[~held], y[~held], val=(x[held], y[held])).settled()
    return head.fit(x, y)

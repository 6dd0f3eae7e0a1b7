"""A classifier of images: a network, where it is read, and a fitted head; in memory and in a folder.

classifier.json               the network and its fingerprint, the cell, how it is read, the head, the labels
learned-<digest>.safetensors  what the head learned; named in classifier.json, written before it
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold import files, runs, settings
from twofold.backbones.base import Backbone
from twofold.errors import BadModel, BadRun, UserError
from twofold.heads.base import Head
from twofold.records import Cell
from twofold.steps import _cells, _remembered
from twofold.steps._fill import Reading

FILE, LEARNED = "classifier.json", "learned-"
NEEDS = {"model": str, "fingerprint": str, "cell": str, "reading": dict, "head": str, "labels": list, "file": str,
         "learned": dict, "about": dict}  # fmt: skip
ADVICE = "Save the classifier again."


@dataclass(frozen=True, eq=False)
class Classifier:
    """What turns images into probabilities.

    Attributes:
        model, fingerprint: the MODEL string, and the hash of the network that the head was fitted on.
        cell, reading: where and how the network is read.
        name, head: the head's name with its settings, and the fitted head.
        labels: [K], what each column of the head's scores is called; text or numbers.
        about: whatever else is worth knowing: where it comes from, its accuracy on val.
    """

    model: str
    fingerprint: str
    cell: Cell
    reading: Reading
    name: str
    head: Head
    labels: NDArray[Any]
    about: dict[str, Any] = field(default_factory=dict)

    def backbone(self) -> Backbone:
        """The network.

        Raises:
            BadModel: what stands behind the model's name now is not what the head was fitted on.
        """
        found = _remembered.load(self.model, self.reading)
        if found.fingerprint != self.fingerprint:
            raise BadModel(
                f"{self.model} is not the network that this classifier was fitted on: its fingerprint is "
                f"{found.fingerprint}, not {self.fingerprint}. Bring that network back (--model says where it is), "
                "or fit a classifier again."
            )
        return found

    def probabilities(self, images: Sequence[Any], memory: Path | None = None) -> NDArray[np.float64]:
        """Probabilities of images that `_images.listed` gave, float64 [N, K]."""
        x, _ = _remembered.features(images, self.backbone(), self.cell, self.reading, memory)
        return self.head.probabilities(self.head.scores(x))


def save(classifier: Classifier, folder: Path) -> None:
    """Write a classifier's folder; one that is there is replaced, a folder with anything else in it is refused.

    A reader, and whoever comes after a kill, finds the old one or the new one.
    """
    from safetensors.torch import save_file

    from twofold.heads import _saving

    check_free(folder)
    tensors, told = _saving.learned(classifier.head)
    folder.mkdir(parents=True, exist_ok=True)
    files.sweep(folder)
    with files.replacing(folder / f"{LEARNED}new.safetensors") as temporary:
        save_file(tensors, temporary)
        name = f"{LEARNED}{_digest(temporary)}.safetensors"
    (folder / f"{LEARNED}new.safetensors").replace(folder / name)
    files.write_json(folder / FILE, {**_record(classifier), "file": name, "learned": told, "made": runs.versions()})
    for old in folder.glob(f"{LEARNED}*"):
        if old.name != name:
            old.unlink()


def keep_best(classifier: Classifier, folder: Path) -> None:
    """Save a classifier unless the folder holds one that is as good on val (`about["val"]`)."""
    if (folder / FILE).exists():
        there = files.read_json(folder / FILE, NEEDS, advice="Delete its folder.")["about"].get("val")
        if isinstance(there, float) and there >= classifier.about["val"]:
            return
    save(classifier, folder)


def load(folder: Path, *, model: str | None = None, device: str | None = None, batch: int | None = None) -> Classifier:
    """Read a classifier's folder; nothing in it is executed.

    Args:
        folder: what `save` wrote.
        model: the MODEL string of the same network, where it has moved since.
        device, batch: where it computes, and images a forward pass; these are not of the classifier but of the machine.

    Raises:
        BadRun: the folder is no classifier, or is damaged.
        BadModel: the network is not the one it was fitted on.
    """
    if not (folder / FILE).is_file():
        raise BadRun(
            f"{folder} is no classifier: it has no {FILE}. Give RUN/classifier of `twofold probe`, RUN of "
            "`twofold finetune`, or a folder that DiffusionClassifier.save wrote."
        )
    found = files.read_json(folder / FILE, NEEDS, advice=ADVICE)
    with files.undamaged(folder / FILE, ADVICE):
        classifier = _restored(folder, found)
    reading = replace(classifier.reading, device=device, batch=batch)
    classifier = replace(classifier, model=model or classifier.model, reading=reading)
    _check_head(classifier, folder / FILE)
    return classifier


def check_free(folder: Path) -> None:
    """Raise `BadRun` where `folder` holds something else than a classifier."""
    if folder.is_dir() and not (folder / FILE).exists():
        others = [p for p in folder.iterdir() if not p.name.startswith((LEARNED, files.UNFINISHED))]
    else:
        others = [folder] if folder.exists() and not folder.is_dir() else []
    if others:
        raise BadRun(f"{folder} is there and is no classifier. Give a new folder.")


def _record(classifier: Classifier) -> dict[str, Any]:
    """What classifier.json says, apart from what the head learned."""
    return {
        "model": classifier.model, "fingerprint": classifier.fingerprint, "cell": str(classifier.cell),
        "reading": settings.as_mapping(classifier.reading, identity_only=True), "head": classifier.name,
        "labels": classifier.labels.tolist(), "about": classifier.about,
    }  # fmt: skip


def _restored(folder: Path, found: dict[str, Any]) -> Classifier:
    """The classifier that a checked classifier.json tells of."""
    from twofold.heads import _saving

    try:
        cell, reading = Cell.parse(found["cell"]), settings.build(Reading, found["reading"], FILE)
        head = _saving.restored(found["head"], _tensors(folder, found["file"]), found["learned"])
    except UserError as error:
        raise ValueError(str(error)) from error
    labels = np.array(found["labels"])
    if labels.shape != head.classes_.shape or labels.dtype.kind not in "Uifb":
        raise ValueError(f"it has labels of shape {labels.shape} for {len(head.classes_)} classes")
    return Classifier(
        found["model"], found["fingerprint"], cell, reading, found["head"], head, labels, found["about"]
    )  # fmt: skip


def _tensors(folder: Path, name: str) -> dict[str, Any]:
    """The tensors of a file whose name tells its content."""
    from safetensors.torch import load_file

    path = folder / name
    if Path(name).name != name or not path.is_file():
        raise ValueError(f"its file {name} is not there")
    if name != f"{LEARNED}{_digest(path)}.safetensors":
        raise ValueError(f"{name} is not as it was written")
    return dict(load_file(path))


def _check_head(classifier: Classifier, path: Path) -> None:
    """Hold a head that came from disk against the network that it reads: one row of zeros must have a score a class."""
    backbone = classifier.backbone()
    with files.undamaged(path, ADVICE):
        try:
            backbone.check_step(classifier.cell.tap.t)
            shape = _cells.shape(backbone, classifier.cell)
            scores = classifier.head.scores(np.zeros((1, *shape), dtype=np.float32))
        except (UserError, RuntimeError) as error:
            raise ValueError(str(error)) from error
        if scores.shape != (1, len(classifier.labels)):
            raise ValueError(f"its head gives {scores.shape[1]} scores for {len(classifier.labels)} labels")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]

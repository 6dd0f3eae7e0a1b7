"""Classify images with a network and a head that were fitted before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twofold import results
from twofold.records import Outcome
from twofold.settings import Settings, setting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from twofold.steps._classifier import Classifier
    from twofold.steps._tuned import Tuned


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold predict`."""

    images: tuple[Path, ...] = setting(
        help="image files, and folders of them: everything below", positional=True, repeats=True
    )
    classifier: Path = setting(
        help="folder of the classifier: RUN/classifier of twofold probe, RUN of twofold finetune, or a saved one"
    )
    top: int = setting(1, help="how many labels an image are told, the likeliest first", least=1, most=10**6)
    model: str | None = setting(None, none="as the classifier says", help="where its network is, if it has moved")
    device: str | None = setting(None, help="cpu, cuda, cuda:N or mps; none: a GPU where there is one")
    batch: int | None = setting(
        None, none="auto", help="images a forward pass; auto: what memory allows", least=1, most=10**6
    )


def run(config: Config) -> Outcome:
    """Labels and probabilities of every image, in the order given."""
    from twofold.steps import _images

    paths = _images.paths(config.images)
    classifier = _loaded(config)
    found = classifier.probabilities(_images.listed(paths))
    labels = [str(label) for label in classifier.labels]
    told = [_told(path, row, labels, config.top) for path, row in zip(paths, found, strict=True)]
    return Outcome({"classifier": str(config.classifier), "images": told}, _table(told))


def _loaded(config: Config) -> Classifier | Tuned:
    """A fitted head on its network, or a network that `finetune` tuned."""
    from twofold.steps import _classifier, _tuned

    of = _tuned if _tuned.is_run(config.classifier) else _classifier
    found: Classifier | Tuned = of.load(config.classifier, model=config.model, device=config.device, batch=config.batch)
    return found


def _told(path: Path, probabilities: NDArray[np.float64], labels: Sequence[str], top: int) -> dict[str, Any]:
    """One image as a JSON object; of equal probabilities the first class comes first."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    likeliest = {labels[k]: round(float(probabilities[k]), 6) for k in order}
    return {"image": str(path), "label": labels[order[0]], "probabilities": likeliest}


def _table(told: Sequence[dict[str, Any]]) -> str:
    """A line an image: label and percent, as often as asked for."""
    count = len(told[0]["probabilities"])
    rows = [("image", *("label", "%") * count)]
    for one in told:
        pairs = one["probabilities"].items()
        rows.append((one["image"], *(text for label, p in pairs for text in (label, f"{100 * p:.1f}"))))
    return results.table(rows)

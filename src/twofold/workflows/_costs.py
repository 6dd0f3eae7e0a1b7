"""What runs cost before they are made: forward passes, operations, and a time from a short measurement."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset
from twofold.workflows import _recipes
from twofold.workflows._planned import Part

# A pass with gradients is taken as three forward passes: itself, and twice as much back.
BACKWARD = 3
LADDER = 8  # noise steps where a run does not say which
ROUNDS = 2  # of the measurement
PIXELS = 1 << 18  # of a batch in it, at most


@dataclass(frozen=True)
class Cost:
    """Of one run.

    Attributes:
        passes: forward passes of one image, those with gradients counted three times.
        operations: multiplications and additions, 0 where the network is not there yet.
        seconds: about how long, None where nothing was measured.
    """

    passes: int
    operations: float
    seconds: float | None

    def row(self, name: str) -> tuple[str, ...]:
        """Of a table."""
        about = "not measured" if self.seconds is None else _duration(self.seconds)
        work = f"{self.operations / 1e12:,.1f}" if self.operations else "not known"
        return name, f"{self.passes:,}", work, about

    def record(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def estimate(planned: Sequence[Part], known: Mapping[tuple[str, str], Any], *, measure: bool) -> dict[str, Cost]:
    """The cost of every run; of heads, reading and writing nothing is counted."""
    model, found = known.get(("model", "")), {}
    backbone = (
        backbones.load(model, device=known["device", ""], precision=known["precision", ""] or "auto") if model else None
    )
    pace = _pace(backbone) if backbone is not None and measure else None
    loaded: dict[str, Dataset] = {}
    for part in planned:
        passes, share = _passes(part, known, loaded), _share(part, known, backbone)
        operations = share * backbone.cost(backbone.blocks[-1].number).operations if backbone is not None else 0.0
        seconds = None if pace is None else passes * share * pace
        found[part.name] = Cost(passes, passes * operations, seconds)
    return found


def _passes(part: Part, known: Mapping[tuple[str, str], Any], loaded: dict[str, Dataset]) -> int:
    values = {name: _known(value, known) for name, value in part.values.items()}
    if part.verb == "pretrain" or part.verb.startswith("rival"):
        return BACKWARD * int(values.get("images", known["images", ""]))
    if part.verb == "sample":
        return int(values["num"]) * int(values["steps"])
    if part.verb == "fid":
        return 0  # its features are another network's
    many = values.get("models", [0]), values.get("data")
    names = [str(name) for name in (many[1] if isinstance(many[1], list) else [many[1]])]
    return sum(len(many[0]) * _of_data(part, values, name, loaded) for name in names)


def _of_data(part: Part, values: Mapping[str, Any], name: str, loaded: dict[str, Dataset]) -> int:
    """Passes over one data set."""
    if name not in loaded:
        loaded[name] = datasets.load(name)
    train, val, test = (len(loaded[name].build(split)) for split in datasets.SPLITS)
    steps = len(values.get("t") or values.get("sigma") or ([0] if part.verb != "select" else range(LADDER)))
    if part.verb == "select":
        return (train + val) * steps
    if part.verb == "finetune":
        shots = values.get("shots") or 0
        seen = min(train, shots * len(loaded[name].classes)) if shots else train
        each = {"frozen": 1, "full": BACKWARD, "difffeed": 1 + BACKWARD}[str(values["mode"])]
        candidates = len(values.get("rates") or [0])
        return int(seen * steps * each * int(values.get("epochs", 28)) * candidates * int(values.get("seeds", 1)))
    controls = 2 if "untrained" in values.get("controls", ["untrained"]) else 1
    return (train + val + test) * steps * controls * int(values.get("seeds", 1))


def _share(part: Part, known: Mapping[tuple[str, str], Any], backbone: Backbone | None) -> float:
    """The part of a whole forward pass that its deepest block needs."""
    blocks = _known(part.values.get("block", part.values.get("blocks", "all")), known)
    listed = blocks if isinstance(blocks, list) else [blocks]
    if backbone is None or part.verb == "pretrain" or "all" in listed or _recipes.mentioned(listed):
        return 1.0
    return max(backbone.block(one).share for one in listed)


def _known(value: Any, known: Mapping[tuple[str, str], Any]) -> Any:
    """Filled in as far as all of it is known."""
    return _recipes.filled(value, known) if _recipes.mentioned(value) <= known.keys() else value


def _pace(backbone: Backbone) -> float:
    """Seconds that one image's whole forward pass takes here."""
    import torch

    side = backbone.image_size
    batch = max(1, min(64, PIXELS // side**2))
    images = torch.zeros(batch, 3, side, side, dtype=torch.uint8)
    x, last, taken = backbone.preprocess(images), backbone.blocks[-1].number, []
    noise = torch.zeros_like(x) if isinstance(backbone, DiffusionBackbone) else None
    step = backbone.step(1.0) if isinstance(backbone, DiffusionBackbone) else None
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        backbone.features(x, step, [last], noise)[last].cpu()
        taken.append(time.perf_counter() - begun)
    return min(taken) / batch


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"

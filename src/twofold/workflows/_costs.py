"""What runs cost before they are made: forward passes, operations, and a time from a short measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.workflows import _head_costs, _recipes
from twofold.workflows._head_costs import BACKWARD, CUBE, Work
from twofold.workflows._planned import Part

# Work beside that of denoising one image (docs/rivals.md, measured on digits).
RIVALS = {"rival gan": 1.9, "rival contrastive": 0.65, "rival masked": 1.0}
CONTROLS = ("pixels", "untrained")
ROWS = 10_000  # of compare
LADDER = 7  # noise steps where a run does not say which
PIXELS = 1 << 18  # of a batch in it, at most
# Before a choice is made it is taken to be the block this far along: later than most (P1's 24 of 37), at the one of
# CIFAR-10's map (15 of 17), so that its maps are rather taken to be too large.
WHERE = 0.85
POOL = 4  # and its pool
Known = Mapping[tuple[str, str], Any]
Count = tuple[int, int, int]


@dataclass(frozen=True)
class Cost:
    """Of one run.

    Attributes:
        passes: forward passes of one image, those with gradients counted three times.
        operations: of these, multiplications and additions; 0 where the network is not there yet.
        head_operations: of heads that are trained by gradients or compare rows; least squares are in the time alone.
        seconds: about how long, None where nothing was measured.
        head_seconds: how many of them are of heads.
    """

    passes: int
    operations: float
    head_operations: float
    seconds: float | None
    head_seconds: float | None

    def row(self, name: str) -> tuple[str, ...]:
        """Of a table."""
        told = ["not measured" if s is None else duration(s) for s in (self.seconds, self.head_seconds)]
        work = f"{(self.operations + self.head_operations) / 1e12:,.1f}" if self.operations else "not known"
        return name, f"{self.passes:,}", work, *told

    def record(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Meter:
    """The network that runs read, and how fast this machine is.

    Attributes:
        backbone: None where there is none yet.
        forward: seconds of one image's whole pass as features are read.
        training: the same in single precision, as networks are trained.
        cube: of the system that least squares are counted in.
        counts: images of train, val and test by DATA strings, and classes.
    """

    backbone: Backbone | None
    forward: float | None
    training: float | None
    cube: float | None
    counts: dict[str, tuple[Count, int]]

    @cached_property
    def operations(self) -> int:
        """Of one image's whole pass."""
        return self.backbone.cost(self.backbone.blocks[-1].number).operations if self.backbone is not None else 0

    def of(self, data: str) -> tuple[Count, int]:
        """The images of a data set's splits, and its classes."""
        if data not in self.counts:
            dataset = datasets.load(data)
            train, val, test = (len(dataset.build(split)) for split in datasets.SPLITS)
            self.counts[data] = (train, val, test), len(dataset.classes)
        return self.counts[data]


def meter(backbone: Backbone | None, training: Backbone | None, *, measure: bool) -> Meter:
    """Measure for some seconds.

    Args:
        backbone, training: the network, as features are read and in single precision; both may be one.
        measure: whether to; else no times are known.
    """
    if backbone is None or not measure:
        return Meter(backbone, None, None, None, {})
    forward = _pace(backbone)
    single = forward if training is backbone or training is None else _pace(training)
    return Meter(backbone, forward, single, _cube(), {})


def estimate(planned: Sequence[Part], known: Known, meter: Meter) -> dict[str, Cost]:
    """The cost of every run; of reading, writing, drawing and resampling nothing is counted."""
    return {part.name: _cost(part, known, meter) for part in planned}


def total(costs: Mapping[str, Cost]) -> float | None:
    """Seconds of all, None where nothing was measured."""
    found = [cost.seconds for cost in costs.values()]
    return None if None in found else sum(s for s in found if s is not None)


def _cost(part: Part, known: Known, meter: Meter) -> Cost:
    values = {name: _known(value, known) for name, value in part.values.items()}
    passes, share, whole = _passes(part, values, known, meter), _share(part, known, meter), meter.operations
    work = _heads(part, values, known, meter) if meter.backbone is not None else Work()
    if meter.forward is None or meter.training is None or meter.cube is None:
        return Cost(passes, passes * share * whole, work.operations, None, None)
    learns = part.verb in ("pretrain", "finetune") or part.verb.startswith("rival")
    # Heads are in single precision; operations of those of rows are taken to be as fast as the network's.
    of_heads = work.duration(meter.training / whole, meter.cube)
    seconds = passes * share * (meter.training if learns else meter.forward) + of_heads
    return Cost(passes, passes * share * whole, work.operations, seconds, of_heads)


def _passes(part: Part, values: Mapping[str, Any], known: Known, meter: Meter) -> int:
    if part.verb == "pretrain" or part.verb in RIVALS:
        images = values.get("images") or known["images", ""]
        return round(BACKWARD * RIVALS.get(part.verb, 1.0) * int(images))
    if part.verb == "sample":
        return int(values["num"]) * int(values["steps"])
    if part.verb == "fid":
        return 0  # its features are another network's
    several = values.get("data")
    names = [str(name) for name in (several if isinstance(several, list) else [several])]
    return sum(len(values.get("models", [0])) * _of_data(part, values, *meter.of(name)) for name in names)


def _of_data(part: Part, values: Mapping[str, Any], count: Count, classes: int) -> int:
    """Passes over one data set."""
    train, val, test = count
    chosen_from = len(values.get("t") or values.get("sigma") or range(LADDER))
    steps = len(values.get("t") or values.get("sigma") or [0])
    if part.verb == "select":
        return (train + val) * chosen_from
    if part.verb == "compare":
        # Rows and columns see other noise.
        there = count[datasets.SPLITS.index(values.get("split", "val"))]
        return min(int(values.get("rows", ROWS)), there) * steps * (4 if values.get("controls") == "untrained" else 2)
    if part.verb == "finetune":
        seen, held = _learned(values, count, classes)
        each = {"frozen": 1, "full": BACKWARD, "difffeed": 1 + BACKWARD}[str(values["mode"])]
        judged = {"difffeed": 2}.get(str(values["mode"]), 1) * held
        runs = len(values.get("rates") or [0]) * int(values.get("seeds", 1))
        return int(steps * (seen * each + judged) * int(values.get("epochs", 28)) * runs)
    controls = 2 if "untrained" in values.get("controls", CONTROLS) else 1
    read = (train + val + test) * controls * int(values.get("seeds", 1))
    return (train + val) * chosen_from + read if part.verb == "transfer" else read * steps


def _learned(values: Mapping[str, Any], count: Count, classes: int) -> tuple[int, int]:
    """Images that a head learns from, and is chosen by."""
    shots = int(values.get("shots") or 0)
    train, val, _ = count
    return (min(train, shots * classes), min(val, shots * classes)) if shots else (train, val)


def _share(part: Part, known: Known, meter: Meter) -> float:
    """The part of a whole forward pass that its deepest block needs."""
    backbone = meter.backbone
    if backbone is None or part.verb in ("pretrain", "sample", *RIVALS):
        return 1.0
    listed = _blocks(part, known, backbone)
    return max(backbone.block(one).share for one in listed)


def _blocks(part: Part, known: Known, backbone: Backbone) -> list[int]:
    """Where a run reads; what is not chosen yet is taken to be some way behind the bottleneck."""
    asked = part.values.get("block", part.values.get("blocks", "all" if "choice" not in part.values else None))
    assumed = backbone.blocks[round(WHERE * (len(backbone.blocks) - 1))].number
    listed = asked if isinstance(asked, list) else [asked]
    if "all" in listed:
        return [block.number for block in backbone.blocks]
    numbers = {str(name): block.number for block in backbone.blocks for name in (block.name, block.number)}
    return [numbers.get(str(_known(one, known)), assumed) for one in listed]


def _heads(part: Part, values: Mapping[str, Any], known: Known, meter: Meter) -> Work:
    """Heads on tables; those that are trained through the network are small beside it."""
    backbone = meter.backbone
    assert backbone is not None
    if part.verb not in ("select", "probe", "transfer"):
        return Work()
    asked = values.get("data")
    found = Work()
    for name in asked if isinstance(asked, list) else [asked]:
        count, classes = meter.of(str(name))
        train, val = _learned(values, count, classes)
        if part.verb != "probe":
            found += _judging(part, values, known, backbone, (train, count[1]))
        if part.verb != "select":
            found += _probing(part, values, known, meter, classes, (train, val, count[2]))
    return found


def _judging(part: Part, values: Mapping[str, Any], known: Known, backbone: Backbone, count: tuple[int, int]) -> Work:
    """Every cell of a map by ridge."""
    steps = len(values.get("t") or values.get("sigma") or range(LADDER))
    trials = int(values.get("trials", 5)) if values.get("shots") else 1
    found = Work()
    for number in _blocks(part, known, backbone):
        block = backbone.block(number)
        for pool in (pool for pool in values.get("pool", [1, 2]) if pool <= block.size):
            # With fewer rows than columns those of val meet all of train in each fit.
            columns = block.channels * pool**2
            turned = 2.0 * count[1] * columns * count[0] if count[0] < columns else 0.0
            found += (_head_costs.squares(count[0], columns) + Work(turned)) * (steps * trials)
    return found


def _probing(part: Part, values: Mapping[str, Any], known: Known, meter: Meter, classes: int, count: Count) -> Work:
    """Every head at one place, for the model and its control."""
    backbone = meter.backbone
    assert backbone is not None
    steps = values.get("t") or values.get("sigma") or [0]
    numbers = _blocks(part, known, backbone) if part.verb == "probe" else _blocks(_anywhere(part), known, backbone)
    shapes = {
        f"b{number}_t{k}_p0": (block.channels, block.size, block.size)
        for k, _ in enumerate(steps if part.verb == "probe" else [0])
        for number in numbers
        for block in [backbone.block(number)]
    }
    controls = values.get("controls", CONTROLS)
    found = Work()
    for head in map(str, values["head"] if isinstance(values["head"], list) else [values["head"]]):
        here = _head_costs.of(head, shapes, POOL, classes, count, measure=meter.forward is not None)
        found += here * (2 if "untrained" in controls else 1)
        if "pixels" in controls:
            side = backbone.image_size
            found += _head_costs.of(head, {"pixels": (3, side, side)}, side, classes, count)
    return found * int(values.get("seeds", 1))


def _anywhere(part: Part) -> Part:
    """The same run where it reads at a place it has chosen."""
    return Part(part.name, part.verb, {"choice": ""}, part.folder, part.needs)


def _known(value: Any, known: Known) -> Any:
    """Filled in as far as all of it is known."""
    return _recipes.filled(value, known) if _recipes.mentioned(value) <= known.keys() else value


def _pace(backbone: Backbone) -> float:
    """Seconds that one image's whole forward pass takes here."""
    import torch

    side = backbone.image_size
    batch = max(1, min(64, PIXELS // side**2))
    images = torch.zeros(batch, 3, side, side, dtype=torch.uint8)
    x, last = backbone.preprocess(images), backbone.blocks[-1].number
    noise = torch.zeros_like(x) if isinstance(backbone, DiffusionBackbone) else None
    step = backbone.step(1.0) if isinstance(backbone, DiffusionBackbone) else None
    return _head_costs.fastest(lambda: backbone.features(x, step, [last], noise)[last].cpu()) / batch


def _cube() -> float:
    """Seconds of the system that least squares are counted in."""
    import torch

    from twofold.heads._shifted import Shifted

    made = torch.randn(CUBE, CUBE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = made.T @ made
    return _head_costs.fastest(lambda: Shifted(made.clone(), made[:, :10].clone()).solve(1.0))


def duration(seconds: float) -> str:
    """In words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"

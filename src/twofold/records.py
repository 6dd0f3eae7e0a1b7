"""The small values that cross the borders between rooms."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from twofold.errors import BadSetting

# What a JSON or TOML file must or may hold by name: a type, several (`int | None`), or a list of one (`list[int]`).
Kinds = Mapping[str, Any]
Number = int | float
LARGEST = 2**63  # of whole numbers; beyond it they are no longer floats


@dataclass(frozen=True)
class ModelName:
    """A parsed MODEL string.

    Attributes:
        scheme: what stands before the colon, or the whole where there is none (`pixels`).
        argument: a folder, file or name; empty where the scheme needs none.
        untrained: random weights instead of the learned ones.
    """

    scheme: str
    argument: str = ""
    untrained: bool = False

    def __str__(self) -> str:
        named = f"{self.scheme}:{self.argument}" if self.argument else self.scheme
        return f"{named}?untrained" if self.untrained else named


@dataclass(frozen=True)
class Block:
    """A place in a backbone where features are read.

    Attributes:
        number: 1-based position along the forward pass (for ADM-256 the paper's b = 1..37).
        name: the module's own name in the network.
        channels: C of the map [B, C, size, size], or D of tokens [B, L, D].
        size: height and width of the map, or the side of the square of tokens.
        share: part of the whole forward's multiplications needed to get here, 0..1.
    """

    number: int
    name: str
    channels: int
    size: int
    share: float


@dataclass(frozen=True)
class Cost:
    """What reading one image takes.

    Attributes:
        operations: multiplications and additions.
        memory: the most bytes of activations alive at a time.
    """

    operations: int
    memory: int


@dataclass(frozen=True, order=True)
class Tap:
    """Where and at which noise features are read: block number and noise step (None: no noise)."""

    block: int
    t: float | None

    def __str__(self) -> str:
        return f"b{self.block}" if self.t is None else f"b{self.block}_t{number_text(self.t)}"


@dataclass(frozen=True)
class Cell:
    """One column group of a feature table: a tap read through a pool."""

    tap: Tap
    pool: int

    def __str__(self) -> str:
        return f"{self.tap}_p{self.pool}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Read what `str` wrote, for instance `b7_t50_p2` or `b1_p8`."""
        found = re.fullmatch(r"b(\d+)(?:_t([^_]+))?_p(\d+)", text)
        if not found:
            raise BadSetting(f"{text!r} is not a tap with a pool; it reads like b7_t50_p2.")
        t = None if found[2] is None else float(found[2])
        return cls(Tap(int(found[1]), t), int(found[3]))


@dataclass(frozen=True)
class Score:
    """One number with everything needed to believe it.

    Attributes:
        name: what was measured, for instance `top1`.
        value: the number; accuracies are shares, 0..1.
        split: the split it was measured on.
        n: how many images it was measured on.
        seeds: the seeds it is the mean over.
        low, high: bounds of the 95 % interval, None where there is none.
        about: provenance: model, data, head, tap, shots ...
    """

    name: str
    value: float
    split: str
    n: int
    seeds: tuple[int, ...] = (0,)
    low: float | None = None
    high: float | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The score as a JSON object."""
        return {**asdict(self), "seeds": list(self.seeds)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Score:
        """The inverse of `record`.

        Raises:
            ValueError: something is missing, strange, or of another kind.
        """
        check(record, needs={"name": str, "value": Number, "split": str, "n": int, "seeds": list[int]},
              may={"low": Number | None, "high": Number | None, "about": dict})  # fmt: skip
        if not all(math.isfinite(end) for end in (record.get("low"), record.get("high")) if end is not None):
            raise ValueError("the interval has no end")
        strange = sorted(record.keys() - cls.__dataclass_fields__.keys())
        if strange:
            raise ValueError(f"{', '.join(strange)} means nothing")
        return cls(**{**record, "seeds": tuple(record["seeds"])})


@dataclass(frozen=True)
class Outcome:
    """What a step gives back: facts for a program, the same as text for a person, and what the user must mend."""

    facts: dict[str, Any]
    text: str = ""
    problem: str = ""


def number_text(value: float) -> str:
    """A number without needless zeros: 50.0 -> 50, 0.25 -> 0.25."""
    return f"{value:.10g}"


def check(found: Any, needs: Kinds, may: Kinds | None = None) -> None:
    """Hold what was read from a file against what it must and what it may hold; other names do not matter.

    Raises:
        ValueError: it is no table of names and values, or the first name that is missing or of another kind.
    """
    if not isinstance(found, dict):
        raise ValueError(f"{_short(found)} is no set of names and values")
    lacking = [name for name in needs if name not in found]
    if lacking:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    for name, kind in {**needs, **(may or {})}.items():
        if name in found and not _is(found[name], kind):
            raise ValueError(f"{name} is {_short(found[name])}")


def _is(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is list:
        return isinstance(value, list) and all(_is(one, typing.get_args(kind)[0]) for one in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) and not (isinstance(value, int) and abs(value) >= LARGEST)


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) < 40 else f"{told[:36]} ..."

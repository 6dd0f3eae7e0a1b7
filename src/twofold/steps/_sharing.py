"""How processes share works that are named: each takes what nobody has taken, and helps out at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from twofold.claims import Claims
from twofold.datasets.base import Rows
from twofold.records import Cell

WAIT = 0.1  # seconds until one looks again at what others are doing


class Shared(Protocol):
    """A piece of work that processes can share.

    Attributes:
        chunk: what it reads; works of one chunk are best done by one process.
        name: by which processes agree on who does it.
        rows: the images of it.
    """

    @property
    def chunk(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def rows(self) -> Sized: ...


W = TypeVar("W", bound=Shared)


@dataclass(frozen=True, eq=False)
class Work:
    """One chunk of rows at one step: what is computed together."""

    split: str
    number: int
    rows: NDArray[np.int64]
    source: Rows
    t: float | None
    cells: tuple[Cell, ...]

    @property
    def chunk(self) -> str:
        """Whose images are read: the same for all steps."""
        return f"{self.split}/{self.number}"

    @property
    def name(self) -> str:
        """By which processes agree on who does it, whatever cells each of them wants."""
        return f"{self.chunk}/{self.t}"


def share(plan: Sequence[W], claims: Claims, lacking: Callable[[W], bool], bar: Any) -> Iterator[W]:
    """The works of a plan that this process shall do; ends when none is lacking but those that it was given.

    First come whole chunks, so that no two processes read the same images. Then what others have claimed and not
    begun is taken from the end; what is left when its owner dies falls to whoever waits for it.
    """
    left = []
    for work in plan:
        if not (claims.take(work.chunk) and claims.take(work.name)):
            left.append(work)
        elif lacking(work):
            yield work
    while left and not claims.closed:
        done = {work.name for work in left if not lacking(work)}
        bar.advance(sum(len(work.rows) for work in left if work.name in done))
        left = [work for work in left if work.name not in done]
        free = next((work for work in reversed(left) if claims.take(work.name)), None)
        if free is None:
            time.sleep(WAIT)
            continue
        left.remove(free)
        # It may have been finished between looking and claiming.
        if lacking(free):
            yield free

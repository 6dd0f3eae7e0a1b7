"""The progress bar: rich on a terminal, a line now and then where stderr is a file."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from twofold._telling import heard_on_terminal

if TYPE_CHECKING:
    from rich.progress import Progress

log = logging.getLogger("twofold")

SECONDS_BETWEEN_LINES = 15.0


class Bar:
    """Counts units of work and says how fast they go, how long it will take, and a note such as the loss."""

    def __init__(self, total: int, title: str, *, done: int = 0, unit: str = "images") -> None:
        self.total, self.title, self.unit = total, title, unit
        self.done = self._first = done
        self._started = self._said = time.monotonic()
        self._display: Progress | None = None

    def __enter__(self) -> Self:
        if heard_on_terminal():
            display = _on_terminal()
            display.start()
            self._display = display
            self._task = display.add_task(self.title, total=self.total, completed=self.done, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display:
            self._display.stop()

    @property
    def rate(self) -> float:
        """Units a second since the bar began."""
        return (self.done - self._first) / max(time.monotonic() - self._started, 1e-9)

    def advance(self, count: int, note: str = "") -> None:
        """Report `count` more units."""
        self.done += count
        if self._display:
            told = f"{self.rate:,.0f} {self.unit}/s {note}"
            self._display.update(self._task, completed=self.done, note=told)
        elif time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            left = (self.total - self.done) / max(self.rate, 1e-9)
            log.info(
                "%s: %s of %s %s, %.0f/s, %.0f s left %s",
                self.title, f"{self.done:,}", f"{self.total:,}", self.unit, self.rate, left, note,
            )  # fmt: skip


def _on_terminal() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[note]}"), TimeRemainingColumn(), console=Console(stderr=True), transient=True,
    )  # fmt: skip

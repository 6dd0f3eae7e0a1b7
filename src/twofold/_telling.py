"""What is told while a command runs: everything to the run's log.txt, and to others what they want to hear."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("twofold")


def to_stderr(quiet: bool) -> None:
    """Tell the terminal, so that stdout holds the result alone; of a quiet command only warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    log.handlers = [h for h in log.handlers if not isinstance(h, logging.StreamHandler)]
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Tell a file too, whatever level the caller of a step has set: what the caller would not hear goes there alone."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    level, heard = log.level, log.getEffectiveLevel()
    apart = _Apart(heard, handler)
    log.addHandler(handler)
    log.addFilter(apart)
    log.setLevel(min(heard, logging.INFO))
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeFilter(apart)
        log.removeHandler(handler)
        handler.close()


def heard_on_terminal() -> bool:
    """Whether somebody at a terminal hears what is told at INFO; a progress bar is for nobody else."""
    if not sys.stderr.isatty() or any(f.level > logging.INFO for f in log.filters if isinstance(f, _Apart)):
        return False
    handlers = log.handlers + (logging.getLogger().handlers if log.propagate else [])
    shown = [h for h in handlers if not isinstance(h, logging.FileHandler)]
    return log.isEnabledFor(logging.INFO) and any(h.level <= logging.INFO for h in shown)


class _Apart(logging.Filter):
    """Lets nobody but a run's file hear what is below the level that its caller hears."""

    def __init__(self, level: int, file: logging.Handler) -> None:
        super().__init__()
        self.level, self._file = level, file

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= self.level:
            return True
        self._file.handle(record)
        return False

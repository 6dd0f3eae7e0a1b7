"""What is noted while training, told to a tracker too (accelerate's); training never depends on one."""

from __future__ import annotations

import importlib.util
import logging
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, final

from twofold import files
from twofold.errors import BadSetting

log = logging.getLogger("twofold")
NAMES = ("none", "tensorboard", "wandb", "trackio")
SAME = "metrics.jsonl holds the same numbers"
PROJECT = "twofold"
WAIT = 15  # seconds until wandb is taken to be out of reach; by default it tries for two minutes


def check(name: str) -> None:
    """Raise `BadSetting` where a tracker's package is not installed."""
    if name != "none" and not installed(name):
        raise BadSetting(
            f"--tracker {name} needs the package {name}, which is not installed. Install it (pip install {name}), "
            f"or leave --tracker out: {SAME}."
        )


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


@final
class Tracker:
    """A tracker, or none; one that stops working is told of once, and left."""

    def __init__(self, tracker: Any = None, end: Callable[[], None] | None = None) -> None:
        self._tracker = tracker
        self._end: Callable[[], None] = end or (_nothing if tracker is None else tracker.finish)

    def tell(self, record: Mapping[str, Any]) -> None:
        """One record of metrics.jsonl, at its count of images."""
        if self._tracker is None:
            return
        values = {name: value for name, value in record.items() if name != "images"}
        try:
            with _aside():
                self._tracker.log(values, step=record["images"])
        except Exception as error:
            log.warning("the tracker takes nothing more (%s); training goes on, and %s", _reason(error), SAME)
            self._tracker = None

    def close(self) -> None:
        """Let it write what it still holds."""
        if self._tracker is None:
            return
        try:
            with _aside():
                self._end()
        except Exception as error:
            log.warning("the tracker did not end well (%s); %s", _reason(error), SAME)


@contextmanager
def opened(name: str, folder: Path, settings: Mapping[str, Any]) -> Iterator[Tracker]:
    """The tracker of this name, `none` included; a run that is continued stays one run of its.

    tensorboard and wandb write into `folder`, trackio where its dashboard looks.

    Raises:
        BadSetting: it cannot begin, for instance without a network or an account.
    """
    # trackio ends a run that is not ended by its own word once more, and says so, when the program ends.
    end = (lambda: importlib.import_module(name).finish()) if name == "trackio" else None
    tracker = Tracker(None if name == "none" else _begun(name, folder, settings), end)
    try:
        yield tracker
    finally:
        tracker.close()


def _nothing() -> None:
    """The end of no tracker."""


def _begun(name: str, folder: Path, settings: Mapping[str, Any]) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    try:
        with _aside():
            tracker = LOGGER_TYPE_TO_CLASS[name](PROJECT, **_where(name, folder))
            if hasattr(tracker, "start"):
                tracker.start()
            tracker.store_init_configuration({n: _plain(value) for n, value in settings.items()})
    except Exception as error:
        advice = "Set WANDB_MODE=offline, mend what it says, or" if name == "wandb" else "Mend what it says, or"
        raise BadSetting(f"--tracker {name} cannot begin: {_reason(error)}. {advice} leave it out: {SAME}.") from error
    return tracker


def _where(name: str, folder: Path) -> dict[str, Any]:
    """What a tracker is told of a run: where to write, and by which name it finds the run again."""
    if name == "tensorboard":
        return {"logging_dir": folder / name}
    known = _identity(folder / "tracked.txt")
    if name == "trackio":
        return {"name": f"{folder.name}-{known}", "resume": "allow"}
    limits = {"init_timeout": WAIT, "login_timeout": WAIT}
    return {"dir": folder, "name": folder.name, "id": known, "resume": "allow", "settings": limits}


def _identity(file: Path) -> str:
    """A word no other run has, kept beside the run: two folders may have one name, and a folder may be made anew."""
    if not file.exists():
        files.write_text(file, secrets.token_hex(4))
    return file.read_text("utf-8").strip()


def _aside() -> redirect_stdout[Any]:
    """What trackers print is not the command's answer."""
    return redirect_stdout(sys.stderr)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__

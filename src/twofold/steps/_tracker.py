"""What is noted while training, told to a tracker too (accelerate's); training never depends on one."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from twofold.errors import BadSetting

log = logging.getLogger("twofold")
NAMES = ("none", "tensorboard", "wandb", "trackio")
SAME = "metrics.jsonl holds the same numbers"


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

    def __init__(self, tracker: Any = None) -> None:
        self._tracker = tracker

    def tell(self, record: Mapping[str, Any]) -> None:
        """One record of metrics.jsonl, at its count of images."""
        if self._tracker is None:
            return
        values = {name: value for name, value in record.items() if name != "images"}
        try:
            self._tracker.log(values, step=record["images"])
        except Exception as error:
            log.warning("the tracker takes nothing more (%s); training goes on, and %s", _reason(error), SAME)
            self._tracker = None

    def close(self) -> None:
        """Let it write what it still holds."""
        if self._tracker is None:
            return
        try:
            self._tracker.finish()
        except Exception as error:
            log.warning("the tracker did not end well (%s); %s", _reason(error), SAME)


@contextmanager
def opened(name: str, folder: Path, settings: Mapping[str, Any]) -> Iterator[Tracker]:
    """The tracker of this name, `none` included; what it writes to disk is in `folder`.

    Raises:
        BadSetting: it cannot begin, for instance without a network or an account.
    """
    tracker = Tracker(None if name == "none" else _begun(name, folder, settings))
    try:
        yield tracker
    finally:
        tracker.close()


def _begun(name: str, folder: Path, settings: Mapping[str, Any]) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[name]
    where = {"logging_dir": folder / name} if kind.requires_logging_directory else {}
    try:
        tracker = kind("twofold", **where)
        if hasattr(tracker, "start"):
            tracker.start()
        tracker.store_init_configuration({n: _plain(value) for n, value in settings.items()})
    except Exception as error:
        advice = "Set WANDB_MODE=offline, mend what it says, or" if name == "wandb" else "Mend what it says, or"
        raise BadSetting(f"--tracker {name} cannot begin: {_reason(error)}. {advice} leave it out: {SAME}.") from error
    return tracker


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__

"""What models and data sets are called where people read it."""

from __future__ import annotations

import re
from pathlib import Path


def short(name: str, parent: Path) -> str:
    """A model's or data set's name for prose: paths relative to `parent`, or their last part."""
    return re.sub(r"[^:@?]+", lambda found: _short_path(found[0], parent), name.removeprefix("run:"))


def _short_path(part: str, parent: Path) -> str:
    """One part of a name that may be a path, as prose shows it."""
    if "/" not in part:
        return part
    try:
        path = Path(part).expanduser()
        inside = path.resolve()
    except (RuntimeError, ValueError, OSError):  # no path of this machine
        return part
    if inside.is_relative_to(parent) and inside != parent:
        return inside.relative_to(parent).as_posix()
    return path.name if path.is_absolute() else part

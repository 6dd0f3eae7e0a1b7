"""How much memory feature tables and training images may take."""

from __future__ import annotations

from typing import Any

from twofold import settings

GIGA = 1e9
SHARE = 0.5  # of what is free, where nothing is said


TABLES = "gigabytes that the feature tables of a head may take; larger ones stay on disk and are read in pieces; "
IMAGES = "gigabytes that the training images may take as numbers; where they are more they are read while training; "


def setting(told: str = TABLES) -> Any:
    """The setting that steps share; another value gives the same scores to rounding, and the same training."""
    told += "auto: half of what is free"
    return settings.setting(None, none="auto", help=told, least=1e-6, most=1e6, identity=False)


def bytes_for(told: float | None) -> int:
    """Bytes, of the setting's value."""
    import psutil

    return int(SHARE * psutil.virtual_memory().available if told is None else told * GIGA)

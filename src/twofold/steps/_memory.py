"""How much memory feature tables may take."""

from __future__ import annotations

from typing import Any

from twofold import settings

GIGA = 1e9
SHARE = 0.5  # of what is free, where nothing is said


def setting() -> Any:
    """The setting that steps with heads share; another value gives the same scores to rounding."""
    return settings.setting(
        None,
        none="auto",
        help="gigabytes that the feature tables of a head may take; larger ones stay on disk and are read in pieces; "
        "auto: half of what is free",
        least=1e-6,
        most=1e6,
        identity=False,
    )


def bytes_for(told: float | None) -> int:
    """Bytes, of the setting's value."""
    import psutil

    return int(SHARE * psutil.virtual_memory().available if told is None else told * GIGA)

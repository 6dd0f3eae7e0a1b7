"""How fast a run read images: noted beside its scores whenever features were computed, so that a kill loses nothing."""

from __future__ import annotations

from pathlib import Path

from twofold import files
from twofold.records import Number

FILE = "speeds.jsonl"


def note(folder: Path, row: str, passes_an_image: int, passes: int, seconds: float) -> None:
    """Add that `passes` forward passes for a row of the run's table took so many seconds."""
    line = {"row": row, "images": passes / passes_an_image, "seconds": seconds}
    files.append_lines(folder / FILE, [line])


def about(folder: Path, row: str) -> dict[str, float]:
    """`images_per_second` of a row, as a score says it; empty where all its features lay in a store already."""
    noted = files.read_lines(folder / FILE, {"row": str, "images": Number, "seconds": Number})
    images, seconds = (sum(line[name] for line in noted if line["row"] == row) for name in ("images", "seconds"))
    return {"images_per_second": images / seconds} if seconds else {}

"""Where a run of `sample` keeps its images, one PNG a number."""

from __future__ import annotations

from pathlib import Path


def path(run: Path, index: int) -> Path:
    """The file of one image."""
    return run / "images" / f"{index:06d}.png"


def written(run: Path, num: int) -> list[Path]:
    """The images that are there of the first `num`, in order; nothing else that lies in the folder."""
    return [file for file in (path(run, index) for index in range(num)) if file.exists()]

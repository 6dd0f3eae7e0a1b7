"""Where a run of `sample` keeps its images, one PNG a number."""

from __future__ import annotations

from pathlib import Path


def path(run: Path, index: int) -> Path:
    """The file of one image."""
    return run / "images" / f"{index:06d}.png"


def written(run: Path, num: int) -> list[Path]:
    """The images that are there of the first `num`, in order; nothing else that lies in the folder.

    It looks at what lies there, not for `num` files: what is written in a run may be any number.
    """
    found = ((int(file.stem), file) for file in (run / "images").glob("*.png") if file.stem.isdecimal())
    return [file for index, file in sorted(found) if index < num and file == path(run, index)]

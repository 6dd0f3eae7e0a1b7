"""Where a run of `sample` keeps its images, one PNG a number; a folder a class where they are of classes."""

from __future__ import annotations

from pathlib import Path


def path(run: Path, index: int, label: str = "") -> Path:
    """The file of one image; `label` is its class's folder."""
    return run / "images" / label / f"{index:06d}.png"


def written(run: Path, num: int) -> list[Path]:
    """The images that are there of the first `num`, in order; nothing else that lies in the folder.

    It looks at what lies there, not for `num` files: what is written in a run may be any number.
    """
    images = run / "images"
    found = ((int(file.stem), file) for file in images.rglob("*.png") if file.stem.isdecimal())
    return [
        file
        for index, file in sorted(found)
        if index < num and file in (path(run, index), path(run, index, file.parent.name))
    ]

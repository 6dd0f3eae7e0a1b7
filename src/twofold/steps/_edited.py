"""Where the results of `edit` lie: PNG files, each with a mark that says what it is the result of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from twofold import files
from twofold.errors import BadData, BadRun, BadSetting

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.PngImagePlugin import PngInfo

PICTURE = "before and after"  # the mark of a picture


def paths(out: Path, images: Sequence[Path], num: int, read: Sequence[Path], picture: Path | None) -> list[list[Path]]:
    """The files of each image's results: `out` itself for one, else a name each in it.

    Args:
        out: a file that ends in .png, or a folder.
        images: what is edited.
        num: results an image.
        read: whatever else is read, and so may not be written over.
        picture: what else is written.
    """
    if out.suffix.lower() == ".png":
        if len(images) * num > 1:
            raise BadSetting(f"--out {out} is one file for {len(images) * num} results. Give a folder.")
        found = [[out]]
    else:
        if out.is_file():
            raise BadRun(f"--out {out} is a file. Give a folder, or a name that ends in .png.")
        stems = [path.stem for path in images]
        if len(set(stems)) < len(stems):
            twin = next(s for s in stems if stems.count(s) > 1)
            raise BadData(f"Several images are called {twin!r}, so their results would be one file. Rename them.")
        ends = [""] if num == 1 else [f"-{k:04d}" for k in range(num)]
        found = [[out / f"{stem}{end}.png" for end in ends] for stem in stems]
    given = {path.resolve() for path in [*images, *read]}
    for path in [*(one for some in found for one in some), *([picture] if picture else [])]:
        if path.resolve() in given:
            raise BadSetting(f"{path} would be written over: it is an image that is read. Give another --out.")
    if picture and picture.resolve() in {one.resolve() for some in found for one in some}:
        raise BadSetting(f"{picture} would be both a result and the picture. Give --picture another file.")
    return found


def check_places(out: Path, folders: Sequence[Path], picture: Path | None) -> None:
    """Refuse places where results would be images to edit for the next run, or where a picture cannot be written.

    Args:
        out: see `paths`.
        folders: whose images are edited, whatever lies below them.
        picture: see `paths`.
    """
    from twofold.datasets import _decode

    if out.suffix.lower() in _decode.SUFFIXES and out.suffix.lower() != ".png" and not out.is_dir():
        raise BadSetting(f"Results are PNG files, and --out {out} is none. Give a name that ends in .png, or a folder.")
    if picture and picture.suffix.lower() != ".png":
        raise BadSetting(f"--picture {picture} must end in .png.")
    for flag, path in (("--out", out), ("--picture", picture)):
        inside = [f for f in folders if path and f.is_dir() and path.resolve().is_relative_to(f.resolve())]
        if inside:
            raise BadSetting(
                f"{flag} {path} lies in {inside[0]}, whose images are edited: what is written there would be edited by "
                "the next run. Give a place outside of it."
            )
    if picture and picture.exists() and (picture.is_dir() or _mark(picture) != PICTURE):
        raise BadRun(f"{picture} is there, and is no picture of `twofold edit`. Give another --picture, or remove it.")


def are_done(outs: Sequence[Path], key: str) -> bool:
    """Whether all of an image's results are there; each is looked at, so that one of others is refused."""
    return sum(_is_done(out, key) for out in outs) == len(outs)


def _is_done(out: Path, key: str) -> bool:
    """Whether this very result is there."""
    if not out.exists():
        return False
    if _mark(out) != key:
        raise BadRun(f"{out} is there, and is not the result of this command. Give another --out, or remove it.")
    return True


def _mark(path: Path) -> str | None:
    """What an image says it is the result of; nothing where it is none of ours."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            found: str | None = image.info.get("twofold")
    except (UnidentifiedImageError, OSError):
        return None
    return found


def save(image: NDArray[np.uint8], out: Path, key: str) -> None:
    """Write a PNG that says what it is the result of."""
    from PIL import Image

    with files.replacing(out) as temporary:
        Image.fromarray(image).save(temporary, pnginfo=mark(key))


def mark(word: str) -> PngInfo:
    """What is written into a PNG beside its pixels."""
    from PIL.PngImagePlugin import PngInfo

    found = PngInfo()
    found.add_text("twofold", word)
    return found

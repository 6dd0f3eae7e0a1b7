"""Pictures in rows and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twofold import files
from twofold.plots._drawn import blank, save

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

LEAST_SIDE = 32  # pixels of an image in a grid, so that small ones can be seen
GAP = 2
Tile = NDArray[np.uint8] | None  # [H, W, 3]


def image_grid(images: Sequence[Path], out: Path) -> None:
    """Lay PNGs of equal size out in a near-square grid, small ones enlarged without smoothing."""
    from PIL import Image

    tiles = [np.asarray(Image.open(path)) for path in images]
    factor = max(1, -(-LEAST_SIDE // tiles[0].shape[0]))
    tiles = [tile.repeat(factor, 0).repeat(factor, 1) for tile in tiles]
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    height, width = tiles[0].shape[0] + GAP, tiles[0].shape[1] + GAP
    sheet = np.full((rows * height + GAP, columns * width + GAP, *tiles[0].shape[2:]), 255, np.uint8)
    for k, tile in enumerate(tiles):
        top, left = GAP + k // columns * height, GAP + k % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    with files.replacing(out) as temporary:
        Image.fromarray(sheet).save(temporary)


def side_by_side(pictures: Sequence[Path], out: Path, *, height: int = 640, gap: int = 24) -> None:
    """Put pictures in a row on white, brought to one height."""
    from PIL import Image

    scaled = []
    for path in pictures:
        picture = Image.open(path).convert("RGB")
        # Few colours mean pixels that shall stay square; photographs and plots are smoothed.
        smooth = Image.Resampling.LANCZOS if picture.height > height else Image.Resampling.NEAREST
        scaled.append(picture.resize((round(picture.width * height / picture.height), height), smooth))
    width = sum(p.width for p in scaled) + gap * (len(scaled) + 1)
    sheet = Image.new("RGB", (width, height + 2 * gap), "white")
    left = gap
    for picture in scaled:
        sheet.paste(picture, (left, gap))
        left += picture.width + gap
    with files.replacing(out) as temporary:
        sheet.save(temporary, optimize=True)


def before_after(rows: Sequence[tuple[NDArray[np.uint8], Sequence[Path]]], out: Path, mark: PngInfo) -> None:
    """One row an image: what was given, [h, w, 3], and its results, all brought to one size without smoothing."""
    from PIL import Image

    lines = [[Image.fromarray(given), *(Image.open(p).convert("RGB") for p in results)] for given, results in rows]
    side = max(96, max(tile.height for line in lines for tile in line))
    step = side + 4 * GAP
    sheet = Image.new("RGB", (len(lines[0]) * step + 4 * GAP, len(lines) * step + 4 * GAP), "white")
    for row, line in enumerate(lines):
        for column, tile in enumerate(line):
            shown = tile.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(shown, (4 * GAP + column * step, 4 * GAP + row * step))
    with files.replacing(out) as temporary:
        sheet.save(temporary, optimize=True, pnginfo=mark)


def samples(classes: Sequence[str], columns: Sequence[tuple[str, Sequence[Tile]]], title: str, out: Path) -> None:
    """A table of pictures, one row a class.

    Args:
        classes: what stands before each row.
        columns: what stands above each column (it may be empty), and its picture of each class, if there is one.
        title: what is shown.
        out: PNG or SVG file.
    """
    figure = blank(1.8 + 0.8 * len(columns), 0.9 + 0.8 * len(classes))
    axes = figure.subplots(len(classes), len(columns), squeeze=False)
    for k, (heading, tiles) in enumerate(columns):
        axes[0, k].set_title(heading, fontsize=9, loc="left")
        for row, tile in enumerate(tiles):
            ax = axes[row, k]
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if tile is not None:
                ax.imshow(tile, interpolation="nearest")
            if k == 0:
                ax.set_ylabel(classes[row], rotation=0, ha="right", va="center", fontsize=8)
    figure.suptitle(title, fontsize=10)
    save(figure, out)

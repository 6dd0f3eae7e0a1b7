"""Every picture of the project: data in, one file out. No global state, no window, one colour map for shares.

Colours keep their order and their contrast for colour-blind readers (Okabe and Ito's palette).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twofold import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.PngImagePlugin import PngInfo

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
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


def selection_map(
    panels: Mapping[str, NDArray[np.float64]], blocks: Sequence[str], steps: Sequence[str],
    best: tuple[str, int, int], title: str, out: Path, looked: Mapping[str, NDArray[np.float64]] | None = None,
) -> None:  # fmt: skip
    """Heat maps of accuracy over block and noise step, one panel a pool.

    Args:
        panels: pool name -> accuracy [blocks, steps], NaN where no cell was judged, which is hatched.
        blocks, steps: labels of rows (bottom to top) and columns.
        best: panel name, row and column of the choice, ringed.
        title: what is shown.
        out: PNG or SVG file.
        looked: as `panels`, what was only looked at on a part of the rows: numbers without a colour.
    """
    figure = _figure(1.6 + max(2.6, 0.62 * len(steps)) * len(panels), 1.6 + max(2.2, 0.3 * len(blocks)))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    shown = np.concatenate([values[np.isfinite(values)] for values in panels.values()])
    low = float(np.quantile(shown, 0.1))
    for ax, (name, values) in zip(axes, panels.items(), strict=True):
        image = ax.imshow(
            100 * values,
            origin="lower",
            aspect="auto",
            cmap="viridis",
            vmin=100 * low,
            vmax=100 * shown.max(),
        )
        _hatch(ax, np.isnan(values))
        _write_cells(ax, values, low, float(shown.max()))
        if looked is not None:
            _write_looks(ax, values, looked[name])
        ax.set_title(name, fontsize=10)
        ax.set_xticks(range(len(steps)), steps, fontsize=8)
        ax.set_xlabel("noise step t  (σ below)")
        if name == best[0]:
            ax.add_patch(_ring(best[2], best[1]))
    axes[0].set_yticks(range(len(blocks)), blocks, fontsize=8)
    axes[0].set_ylabel("block")
    bar = figure.colorbar(image, ax=list(axes), shrink=0.9, pad=0.02)
    bar.set_label("accuracy on val, %")
    figure.suptitle(title, fontsize=11)
    _save(figure, out)


def training_curves(metrics: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Loss and both qualities over images seen, one under the other; what was never measured gets no panel."""
    kinds = (
        ("loss", "loss (MSE of ε)", COLOURS[0], 1),
        ("probe", "probe on val, %", COLOURS[1], 100),
        ("tapped", "probe at the best tap on val, %", COLOURS[1], 100),
        ("fd", "Fréchet distance of samples from val", COLOURS[2], 1),
    )
    shown = [kind for kind in kinds if any(kind[0] in m for m in metrics)] or [kinds[0]]
    figure = _figure(4.8, 0.5 + 1.9 * len(shown))  # narrow, so that its letters stay readable on a phone
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (name, label, colour, factor) in zip(axes, shown, strict=True):
        points = [(m["images"], factor * m[name]) for m in metrics if name in m]
        x, y = zip(*points, strict=True) if points else ((), ())
        marker = "o" if len(points) <= 30 else None
        ax.plot(x, y, color=colour, marker=marker, markersize=3.5, linewidth=1.6)
        ax.set_title(label, fontsize=10, loc="left")
        ax.margins(x=0.03, y=0.1)
        _plain(ax)
        if name == "loss":
            _log_in_plain_numbers(ax)
    axes[-1].set_xlabel("images seen")
    axes[-1].xaxis.set_major_formatter("{x:,.0f}")
    axes[-1].xaxis.set_major_locator(_few_ticks())
    _save(figure, out)


def measured_beside_published(
    measured: tuple[Sequence[float], Sequence[float], Sequence[float], str],
    published: tuple[Sequence[float], Sequence[float], str],
    label: str, out: Path, *, logarithmic: bool,
) -> None:  # fmt: skip
    """Two curves of accuracy over the same axis, one above the other, since their heights are of other data.

    Args:
        measured: x, accuracy in percent, half of its 95 % interval, and what it is.
        published: x, accuracy in percent, and what it is.
        label: of the axis that they share, with its unit.
        out: PNG or SVG file.
        logarithmic: whether that axis is.
    """
    figure = _figure(4.8, 4.4)
    axes = figure.subplots(2, 1, sharex=True)
    x, y, errors, told = measured
    axes[0].errorbar(x, y, errors, color=COLOURS[0], marker="o", markersize=4, linewidth=1.6, capsize=2)
    axes[1].plot(published[0], published[1], color=COLOURS[1], marker="s", markersize=4, linewidth=1.6)
    for ax, title in zip(axes, (told, published[2]), strict=True):
        ax.set_title(title, fontsize=9, loc="left")
        ax.set_ylabel("top-1, %")
        ax.margins(y=0.12)
        _plain(ax)
        if logarithmic:
            ax.set_xscale("log")
    if logarithmic:
        axes[1].xaxis.set_major_formatter("{x:g}")
    axes[1].set_xlabel(label)
    _save(figure, out)


def confusion(
    panels: Mapping[str, NDArray[np.int64]], classes: Sequence[str], title: str, out: Path
) -> None:  # fmt: skip
    """What was taken for what, one panel a head: the share of each label's images in percent, zeros left blank.

    Args:
        panels: name -> counts [K, K], a row a label, a column an answer.
        classes: their names.
        title: what is shown.
        out: PNG or SVG file.
    """
    side = 1.4 + max(2.4, 0.34 * len(classes))
    figure = _figure(side * len(panels), side + 0.3)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    letters = 8 if len(classes) <= 24 else 6
    for ax, (name, counts) in zip(axes, panels.items(), strict=True):
        shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5 and len(classes) <= 24:
                colour = "white" if share > 60 else "black"
                ax.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=7, color=colour)
        ax.set_xticks(range(len(classes)), classes, fontsize=letters, rotation=90)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("answer")
    axes[0].set_yticks(range(len(classes)), classes, fontsize=letters)
    axes[0].set_ylabel("label")
    figure.suptitle(f"{title}, % of each label", fontsize=11)
    _save(figure, out)


def _log_in_plain_numbers(ax: Axes) -> None:
    """A logarithmic y axis that says 0.2 rather than 2 × 10⁻¹."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

    low, high = ax.dataLim.intervaly
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if high < 5 * low else (1, 2, 3, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter(NullFormatter())


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _plain(ax: Axes) -> None:
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def _ring(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#d62728", linewidth=2.5)


def _write_cells(ax: Axes, values: NDArray[np.float64], low: float, high: float) -> None:
    """The number in each cell, dark on light and light on dark."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = value > low + 0.6 * (high - low)
            ax.text(
                column,
                row,
                f"{100 * value:.1f}",
                ha="center",
                va="center",
                fontsize=7,
                color="black" if dark else "white",
            )


def _hatch(ax: Axes, empty: NDArray[np.bool_]) -> None:
    """Cells that nobody judged are seen to be empty."""
    from matplotlib.patches import Rectangle

    for row, column in np.argwhere(empty):
        place = (column - 0.5, row - 0.5)
        ax.add_patch(Rectangle(place, 1, 1, fill=False, hatch="////", edgecolor="#dddddd", linewidth=0))


def _write_looks(ax: Axes, values: NDArray[np.float64], looked: NDArray[np.float64]) -> None:
    """Pale numbers in cells that were looked at and not judged."""
    for row, column in np.argwhere(np.isnan(values) & np.isfinite(looked)):
        plate = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        text = f"{100 * looked[row, column]:.0f}"
        ax.text(column, row, text, ha="center", va="center", fontsize=6, color="#777777", bbox=plate)


def _save(figure: Figure, out: Path) -> None:
    with files.replacing(out) as temporary:
        figure.savefig(temporary, dpi=144)


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
    figure = _figure(1.8 + 0.8 * len(columns), 0.9 + 0.8 * len(classes))
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
    _save(figure, out)

"""Tables of numbers as colours: accuracy over block and step, and what was taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twofold.plots._drawn import blank, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    figure = blank(1.6 + max(2.6, 0.62 * len(steps)) * len(panels), 1.6 + max(2.2, 0.3 * len(blocks)))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    shown = np.concatenate([values[np.isfinite(values)] for values in panels.values()])
    low = min(float(np.quantile(shown, 0.1)), float(shown.max()) - 0.01)  # of one value a bar would end above 100 %
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
    save(figure, out)


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
    figure = blank(side * len(panels), side + 0.3)
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
    save(figure, out)


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

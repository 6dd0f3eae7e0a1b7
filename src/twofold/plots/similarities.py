"""Heat maps of similarity as the papers draw them: magma from 0.1 to 0.9, the first block below, one colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twofold.plots._drawn import blank, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RANGE = (0.1, 0.9)
ACROSS = 4  # panels beside one another
MOST_TICKS = 13
MOST_WRITTEN = 8  # rows and columns of a map whose numbers are written into it


@dataclass(frozen=True, eq=False)
class Panel:
    """One heat map.

    Attributes:
        title: above it.
        values: CKA [rows, columns].
        rows, columns: short names along its sides.
        matched: whether a line joins the most alike row of each column.
    """

    title: str
    values: NDArray[np.float64]
    rows: Sequence[str]
    columns: Sequence[str]
    matched: bool = False


def maps(panels: Sequence[Panel], rows: str, columns: str, title: str, outs: Sequence[Path]) -> None:
    """Maps of equal meaning, row by row.

    Args:
        panels: the maps.
        rows, columns: what their sides are, with the unit.
        title: what is shown.
        outs: PNG and SVG files.
    """
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = blank(1.5 + 2.5 * across, 1.0 + 2.6 * down)
    axes = figure.subplots(down, across, squeeze=False)
    for ax, panel in zip(axes.flat, panels, strict=False):
        image = ax.imshow(panel.values, origin="lower", cmap="magma", vmin=RANGE[0], vmax=RANGE[1], aspect="auto")
        ax.set_title(panel.title, fontsize=9)
        ax.set_box_aspect(min(1.6, max(0.5, len(panel.rows) / len(panel.columns))))
        _ticks(ax, panel)
        if panel.matched:
            _match(ax, panel.values)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    figure.supxlabel(columns, fontsize=9)
    figure.supylabel(rows, fontsize=9)
    figure.suptitle(title, fontsize=10)
    bar = figure.colorbar(image, ax=list(axes.flat), extend="both", shrink=0.9, pad=0.02)
    bar.set_label("CKA", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    for out in outs:
        save(figure, out)
        figure.set_layout_engine("none")  # laid out once is enough, and takes longest


def _ticks(ax: Axes, panel: Panel) -> None:
    """As many names as there is room for; numbers in the cells of small maps."""
    letters = 8 if max(map(len, (*panel.rows, *panel.columns))) <= 4 else 7
    for names, put, turn in ((panel.rows, ax.set_yticks, 0), (panel.columns, ax.set_xticks, 90)):
        step = -(-len(names) // MOST_TICKS)
        upright = turn if max(map(len, names)) > 3 else 0
        put(range(0, len(names), step), list(names[::step]), fontsize=letters, rotation=upright)
    if max(panel.values.shape) <= MOST_WRITTEN:
        for (row, column), value in np.ndenumerate(panel.values):
            colour = "black" if value > 0.65 else "white"
            ax.text(column, row, f"{value:z.2f}", ha="center", va="center", fontsize=7, color=colour)


def _match(ax: Axes, values: NDArray[np.float64]) -> None:
    """The most alike row of each column, as a line."""
    best = values.argmax(0)
    ax.plot(range(len(best)), best, color="#009e73", marker="o", markersize=3, linewidth=1.4, markeredgecolor="white",
            markeredgewidth=0.5)  # fmt: skip

"""Bars of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twofold.plots._drawn import COLOURS, blank, plain, save

# Enough patterns that bars of one colour are told apart in grey print too.
HATCHES = ("///", "...", "\\\\\\", "xx", "--", "||")
LETTER = 0.06  # inches of a letter of the legend
WIDEST = 11.0  # inches, unless a name needs more: letters must stay readable in a column
Bar = tuple[float, float, float] | None


@dataclass(frozen=True)
class Bars:
    """What one method reaches.

    Attributes:
        name: of the method.
        control: whether it is there to be compared with, and so grey and hatched.
        values: for each group the value and both ends of its interval, None where there is none.
    """

    name: str
    control: bool
    values: Sequence[Bar]


def grouped_bars(groups: Sequence[str], bars: Sequence[Bars], label: str, out: Path) -> None:
    """Bars side by side with their intervals, a group for each name on the x axis; the y axis starts at 0.

    Args:
        groups: names below the axis.
        bars: the methods, in the order of the legend.
        label: of the y axis, with its unit.
        out: PNG or SVG file.
    """
    letters = LETTER * max(len(method.name) for method in bars) + 0.75
    across = max(5.0, letters, min(WIDEST, 1.0 + 0.26 * len(groups) * (len(bars) + 1.5)))
    columns = min(3, int(across // letters))
    figure = blank(across, 3.4 + 0.2 * -(-len(bars) // columns))
    ax, width = figure.subplots(), 1 / (len(bars) + 1.5)
    controls = [method for method in bars if method.control]
    for k, method in enumerate(bars):
        centres = np.arange(len(groups)) + (k - (len(bars) - 1) / 2) * width
        kept = [(x, value) for x, value in zip(centres, method.values, strict=True) if value is not None]
        heights = np.array([value for _, (value, _, _) in kept])
        ends = np.array([(value - low, high - value) for _, (value, low, high) in kept]).T
        style = _style(controls.index(method) if method.control else k, control=method.control)
        bar = {"elinewidth": 1.0, "capsize": 2, "ecolor": "#1c2026"}
        ax.bar([x for x, _ in kept], heights, width, yerr=np.abs(ends), label=method.name, error_kw=bar, **style)
    plain(ax)
    ax.set_axisbelow(True)
    ax.grid(visible=False, axis="x")
    ax.set_xticks(range(len(groups)), groups)
    ax.set_ylabel(label)
    ax.set_xlim(-0.6, len(groups) - 0.4)
    ax.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    save(figure, out)


def _style(number: int, *, control: bool) -> dict[str, Any]:
    if control:
        return {"color": "#e4e5e7", "hatch": HATCHES[number % len(HATCHES)], "edgecolor": "#6f747b"}
    again = "" if number < len(COLOURS) else "//"
    return {"color": COLOURS[number % len(COLOURS)], "hatch": again, "edgecolor": "white"}

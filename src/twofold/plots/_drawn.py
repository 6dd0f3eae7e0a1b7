"""What pictures share: colours, a blank figure, plain axes, and a file that is there whole or not at all.

Colours keep their order and their contrast for colour-blind readers (Okabe and Ito's palette).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from twofold import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def blank(width: float, height: float) -> Figure:
    """A figure of so many inches, laid out when it is saved."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def plain(ax: Axes) -> None:
    """A pale grid, and no frame above and on the right."""
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, out: Path, about: Mapping[str, str | None] | None = None) -> None:
    """Write PNG or SVG, with what it says of itself."""
    with files.replacing(out) as temporary:
        figure.savefig(temporary, dpi=144, metadata=dict(about) if about else None)

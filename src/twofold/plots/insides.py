"""Pictures of what a network sees: its blocks as colours, images that are near, classes as clouds of points."""

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

MARK = "twofold show"  # in every file that is written here, so that it may be replaced
HEAD = 4096  # bytes of a file in which the mark stands
Picture = NDArray[np.generic]  # [h, w, 3] uint8, or float 0..1; [h, w] grey
SHAPES = "osD^vP*X"


@dataclass(frozen=True, eq=False)
class Near:
    """A stored image that is like one that was asked for.

    Attributes:
        picture: the image.
        label: its class.
        similarity: cosine of the angle between the features, -1..1.
    """

    picture: Picture
    label: str
    similarity: float


def is_ours(path: Path) -> bool:
    """Whether a file was written here."""
    with path.open("rb") as file:
        return MARK.encode() in file.read(HEAD)


def block_maps(
    rows: Sequence[tuple[str, Sequence[Picture]]], columns: Sequence[str], title: str, out: Path
) -> None:  # fmt: skip
    """A table of pictures: what went in, and what blocks make of it.

    Args:
        rows: what stands before each row, and its pictures.
        columns: what stands above them.
        title: what is shown.
        out: PNG or SVG file.
    """
    figure = blank(0.9 + 1.25 * len(columns), 0.9 + 1.25 * len(rows))
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, (label, pictures) in zip(axes, rows, strict=True):
        for ax, picture in zip(line, pictures, strict=True):
            _show(ax, picture)
        line[0].set_ylabel(label, fontsize=8)
    for ax, heading in zip(axes[0], columns, strict=True):
        ax.set_title(heading, fontsize=8)
    figure.suptitle(title, fontsize=9)
    save(figure, out, _told(out))


def neighbours(rows: Sequence[tuple[Picture, str, Sequence[Near]]], title: str, out: Path) -> None:
    """A row an image: itself with its name, then the nearest stored ones with class and similarity."""
    count = max(len(near) for _, _, near in rows)
    figure = blank(0.4 + 1.15 * (count + 1), 0.6 + 1.45 * len(rows))
    axes = figure.subplots(len(rows), count + 1, squeeze=False)
    for line, (picture, name, near) in zip(axes, rows, strict=True):
        _show(line[0], picture)
        line[0].set_title(name[-18:], fontsize=8, fontweight="bold")
        for ax, one in zip(line[1:], near, strict=True):
            _show(ax, one.picture)
            ax.set_title(f"{one.label[:16]}\n{one.similarity:z.2f}", fontsize=8)
    figure.suptitle(title, fontsize=9)
    save(figure, out, _told(out))


def classes(
    points: NDArray[np.float64], labels: NDArray[np.int64], names: Sequence[str], title: str, out: Path
) -> None:
    """Points [N, 2] in the colour and shape of their classes, whose means bear their names."""
    from matplotlib import colormaps
    from matplotlib.patheffects import withStroke

    figure = blank(5.4, 5.2)
    ax = figure.subplots()
    halo = [withStroke(linewidth=2.5, foreground="white")]
    present = np.unique(labels).tolist()
    colours = colormaps["tab10" if len(present) <= 10 else "turbo"]
    for k, label in enumerate(present):
        own = points[labels == label]
        colour = colours(k if len(present) <= 10 else k / (len(present) - 1))
        ax.scatter(own[:, 0], own[:, 1], s=9, color=colour, marker=SHAPES[k % len(SHAPES)], alpha=0.6, linewidths=0)
        ax.annotate(
            names[label][:18], own.mean(0), ha="center", va="center", fontsize=9, fontweight="bold", path_effects=halo
        )
    ax.set(xticks=[], yticks=[], xlabel="first coordinate (no unit)", ylabel="second coordinate (no unit)")
    ax.set_title(title, fontsize=9)
    save(figure, out, _told(out))


def _show(ax: Axes, picture: Picture) -> None:
    ax.imshow(picture, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _told(out: Path) -> dict[str, str | None]:
    """What a picture says of itself; an SVG would say when it was made, too."""
    return {"Title": MARK} | ({"Date": None} if out.suffix == ".svg" else {})

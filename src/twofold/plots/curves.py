"""Curves, of a training and of an accuracy beside a published one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold.plots._drawn import COLOURS, blank, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def training_curves(metrics: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Loss and both qualities over images seen, one under the other; what was never measured gets no panel."""
    kinds = (
        ("loss", "loss (MSE of ε)", COLOURS[0], 1),
        ("probe", "probe on val, %", COLOURS[1], 100),
        ("tapped", "probe at the best tap on val, %", COLOURS[1], 100),
        ("fd", "Fréchet distance of samples from val", COLOURS[2], 1),
    )
    shown = [kind for kind in kinds if any(kind[0] in m for m in metrics)] or [kinds[0]]
    figure = blank(4.8, 0.5 + 1.9 * len(shown))  # narrow, so that its letters stay readable on a phone
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (name, label, colour, factor) in zip(axes, shown, strict=True):
        points = [(m["images"], factor * m[name]) for m in metrics if name in m]
        x, y = zip(*points, strict=True) if points else ((), ())
        marker = "o" if len(points) <= 30 else None
        ax.plot(x, y, color=colour, marker=marker, markersize=3.5, linewidth=1.6)
        ax.set_title(label, fontsize=10, loc="left")
        ax.margins(x=0.03, y=0.1)
        plain(ax)
        if name == "loss":
            _log_in_plain_numbers(ax)
    axes[-1].set_xlabel("images seen")
    axes[-1].xaxis.set_major_formatter("{x:,.0f}")
    axes[-1].xaxis.set_major_locator(_few_ticks())
    save(figure, out)


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
    figure = blank(4.8, 4.4)
    axes = figure.subplots(2, 1, sharex=True)
    x, y, errors, told = measured
    axes[0].errorbar(x, y, errors, color=COLOURS[0], marker="o", markersize=4, linewidth=1.6, capsize=2)
    axes[1].plot(published[0], published[1], color=COLOURS[1], marker="s", markersize=4, linewidth=1.6)
    for ax, title in zip(axes, (told, published[2]), strict=True):
        ax.set_title(title, fontsize=9, loc="left")
        ax.set_ylabel("top-1, %")
        ax.margins(y=0.12)
        plain(ax)
        if logarithmic:
            ax.set_xscale("log")
    if logarithmic:
        axes[1].xaxis.set_major_formatter("{x:g}")
        seen = [*x, *published[0]]
        if max(seen) < 10 * min(seen):
            # Within a power of ten matplotlib names the ticks between as powers: 3 × 10⁰.
            axes[1].set_xticks(sorted({*seen}))
            axes[1].xaxis.set_minor_formatter("")
    axes[1].set_xlabel(label)
    save(figure, out)


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

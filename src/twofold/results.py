"""Scores on disk, intervals, and tables of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold import files, noise
from twofold.records import Kinds, Score, check

BOOTSTRAP_SAMPLES = 2000


def append(folder: Path, scores: Iterable[Score]) -> None:
    """Add scores to a run's results.jsonl."""
    files.append_lines(folder / "results.jsonl", [score.record() for score in scores])


def read(folder: Path, needs: Kinds | None = None, may: Kinds | None = None) -> list[Score]:
    """All scores of a run, in the order they were written.

    Args:
        folder: of the run.
        needs, may: what their `about` must and may hold.

    Raises:
        BadRun: results.jsonl is damaged.
    """
    path = folder / "results.jsonl"
    records = files.read_lines(path)
    with files.undamaged(path):
        scores = [Score.from_record(record) for record in records]
        for score in scores:
            check(score.about, needs or {}, may)
        return scores


def bootstrap_interval(per_image: NDArray[Any], *, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean over resampled images.

    Args:
        per_image: [N], or [S, N] for S seeds; seeds are resampled as well as images, so their spread counts.
        seed: of the resampling.
        level: share of resamples inside the interval.
    """
    values = np.atleast_2d(np.asarray(per_image, dtype=np.float64))
    seeds, n = values.shape
    chance = noise.generator(seed, 0, purpose=noise.BOOTSTRAP)
    means = np.empty(BOOTSTRAP_SAMPLES)
    for k in range(BOOTSTRAP_SAMPLES):
        rows = chance.integers(0, seeds, seeds)
        weight = np.bincount(chance.integers(0, n, n), minlength=n)
        means[k] = values[rows].mean(0) @ weight / n
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as aligned columns; the first row is the heading."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def percent(score: Score) -> str:
    """A share with its interval in percent: `98.2 (96.9 to 99.3)`."""
    if score.low is None or score.high is None:
        return f"{100 * score.value:.1f}"
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"

"""Scores on disk, intervals, and tables of text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    return interval(bootstrap(lambda weights: values @ weights / n, seeds, n, seed=seed), level=level)


def bootstrap(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], seeds: int, images: int, *, seed: int = 0
) -> NDArray[np.float64]:
    """A measure on resampled images and seeds, [BOOTSTRAP_SAMPLES]; the resamples are the same for every measure.

    Args:
        statistic: how often each image counts [N] -> the measure for each seed [S].
        seeds, images: S and N.
        seed: of the resampling.
    """
    chance = noise.generator(seed, 0, purpose=noise.BOOTSTRAP)
    found = np.empty(BOOTSTRAP_SAMPLES)
    for k in range(BOOTSTRAP_SAMPLES):
        rows = chance.integers(0, seeds, seeds)
        weights = np.bincount(chance.integers(0, images, images), minlength=images).astype(np.float64)
        found[k] = statistic(weights)[rows].mean()
    return found


def interval(samples: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of samples."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as aligned columns; the first row is the heading."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def percent(score: Score, *, signed: bool = False) -> str:
    """A share with its interval in percent: `98.2 (96.9 to 99.3)`; a difference is signed: `+1.1 (-0.4 to +2.7)`."""
    form = "+.1f" if signed else ".1f"
    if score.low is None or score.high is None:
        return f"{100 * score.value:{form}}"
    return f"{100 * score.value:{form}} ({100 * score.low:{form}} to {100 * score.high:{form}})"


def ends(score: Score) -> str:
    """A number with its interval as they are: `0.598 (0.571 to 0.640)`."""
    if score.low is None or score.high is None:
        return f"{score.value:.3f}"
    return f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"


def p_text(value: float) -> str:
    """The p of a test: `p = 0.021`, `p < 0.001`."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"

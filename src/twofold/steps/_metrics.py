"""What predictions are worth: several measures, each with a 95 % interval over images and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofold import results
from twofold.steps._trials import Predictions

Shares = NDArray[np.float64]
Statistic = Callable[[Shares], Shares]  # weights of images [N] -> the measure for each seed [S]

TOP = 5
BINS = 15


@dataclass(frozen=True)
class Measured:
    """One measure: its value over all seeds, for each of them, and the interval."""

    name: str
    value: float
    per_seed: list[float]
    low: float
    high: float


def measure(found: Predictions) -> Iterator[Measured]:
    """Yield top-1; top-5 where there are more than five classes; the mean of the classes' accuracies; calibration."""
    seeds, images = found.predicted.shape
    for name, statistic in _statistics(found).items():
        per_seed = statistic(np.ones(images))
        value, samples = float(per_seed.mean()), results.bootstrap(statistic, seeds, images)
        if name == "calibration_error":
            # Repeated images stand further from their bin's line: what resampling itself adds is taken off again.
            samples = np.maximum(samples - samples.mean() + value, 0)
        yield Measured(name, value, per_seed.tolist(), *results.interval(samples))


def confusion(found: Predictions, classes: int) -> NDArray[np.int64]:
    """How often label i was taken for label j [classes, classes], summed over seeds."""
    pairs = found.labels * classes + found.predicted
    return np.bincount(pairs.ravel(), minlength=classes**2).reshape(classes, classes)


def _statistics(found: Predictions) -> dict[str, Statistic]:
    """The measures as functions of how often each image counts."""
    top1, top5 = found.right.astype(np.float64), (found.rank < TOP).astype(np.float64)
    _, position = np.unique(found.labels, return_inverse=True)
    bins = np.minimum((found.confidence * BINS).astype(np.int64), BINS - 1)

    def share(of: Shares) -> Statistic:
        return lambda weights: of @ weights / weights.sum()

    def mean_per_class(weights: Shares) -> Shares:
        totals = np.bincount(position, weights)
        there = totals > 0
        return np.array([(np.bincount(position, weights * own)[there] / totals[there]).mean() for own in top1])

    def calibration_error(weights: Shares) -> Shares:
        """Mean distance of confidence to accuracy over bins of confidence (Guo et al. 2017, eq. 5)."""
        apart = top1 - found.confidence
        sums = [np.abs(np.bincount(b, weights * own)).sum() for b, own in zip(bins, apart, strict=True)]
        error: Shares = np.array(sums) / weights.sum()
        return error

    several = {"top5": share(top5)} if int(found.classes) > TOP else {}
    return {"top1": share(top1), **several, "mean_per_class": mean_per_class, "calibration_error": calibration_error}

"""How many generated images a calibrated classifier of real ones is sure of, and of how many classes.

A cheap check that samples look like the data, readable by a person: a support vector machine on the tables, its
scores turned into probabilities by Platt's method on held-out folds, trained on real images alone. Each class is
judged against all others by itself, so that noise is no class rather than the nearest one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from twofold.analyses.base import Analysis, Table
from twofold.errors import BadData
from twofold.records import Score
from twofold.results import bootstrap_interval

SURE = 0.9  # probability of the likeliest class from which the classifier counts as sure
FOLDS = 5
SLACK = 10.0  # the machine's C; digits are separable, so its exact value does not matter


@final
class Recognised(Analysis):
    """Shares of sure answers on generated and on held-out real images, and their ratio."""

    needs = ("real", "real_labels", "held_out", "generated")

    def measure(self, tables: Mapping[str, Table]) -> Iterator[Score]:
        """Yield `sure` of held-out images, `sure` of generated ones, `sure_ratio`, and the `classes_seen` of these.

        The tables hold pixels or features: real [N, D] with real_labels [N], held_out [M, D], generated [G, D].
        """
        from sklearn.calibration import CalibratedClassifierCV
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.svm import SVC

        self.check(tables)
        labels = tables["real_labels"]
        counts = np.unique(labels, return_counts=True)[1]
        if len(counts) < 2 or counts.min() < FOLDS:
            raise BadData(f"The classifier needs two classes and {FOLDS} images of each; give more labelled images.")
        one = CalibratedClassifierCV(SVC(C=SLACK), ensemble=False, cv=FOLDS)
        judge = OneVsRestClassifier(one).fit(tables["real"], labels)
        real = _chances(judge, tables["held_out"]).max(1) >= SURE
        chances = _chances(judge, tables["generated"])
        made = chances.max(1) >= SURE
        about = {"sure_from": SURE, "classifier": "support vector machine, Platt scaling"}
        yield Score("sure", float(real.mean()), "test", len(real), (), *bootstrap_interval(real), about)
        yield Score("sure", float(made.mean()), "generated", len(made), (), *bootstrap_interval(made), about)
        yield Score("sure_ratio", float(made.mean() / max(real.mean(), 1e-9)), "generated", len(made), (), about=about)
        # An image that the classifier is not sure of has a likeliest class all the same, which says nothing.
        seen_counts = np.bincount(chances[made].argmax(1), minlength=len(judge.classes_))
        seen = {**about, "counts": dict(zip(map(str, judge.classes_), seen_counts.tolist(), strict=True))}
        yield Score("classes_seen", float((seen_counts > 0).sum()), "generated", len(made), (), about=seen)


def _chances(judge: Any, x: Table) -> NDArray[np.float64]:
    """Each class's own probability [N, K], not scaled to add up to 1: an image that is no class has none."""
    return np.stack([one.predict_proba(x)[:, 1] for one in judge.estimators_], 1)


build = Recognised

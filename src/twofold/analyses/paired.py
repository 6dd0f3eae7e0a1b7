"""Whether two heads or two backbones differ, judged on the same images: each is compared with its own twin.

Most images are easy or hard for both, and say nothing. An interval of the difference and a test that look at pairs find
much smaller differences than two intervals beside one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from twofold import noise, results
from twofold.analyses.base import Analysis, Table
from twofold.errors import BadData
from twofold.records import Score

FLIPS = 9_999
AT_ONCE = 100


@final
class Paired(Analysis):
    """The second's mean less the first's, with a bootstrap interval over images and seeds, and a sign-flip test."""

    needs = ("first", "second")

    def measure(self, tables: Mapping[str, Table]) -> Iterator[Score]:
        """Yield the `difference` of `first` and `second`, [N, S] each: what counts on each image for each seed.

        Images and seeds must stand in the same order in both. The p in `about` is two-sided.
        """
        self.check(tables)
        first, second = (np.asarray(tables[name], dtype=np.float64) for name in self.needs)
        if first.shape != second.shape or not first.size:
            raise BadData(
                f"The tables have {len(first)} and {len(second)} images; pairs are of the same images. Make them alike."
            )
        apart = (second - first).T
        per_image = apart.mean(0)
        about = {
            "p": _sign_flip(per_image), "better": int((per_image > 0).sum()), "worse": int((per_image < 0).sum()),
            "test": f"sign flips ({FLIPS:,}) of the images' differences",
        }  # fmt: skip
        ends = results.bootstrap_interval(apart)
        yield Score("difference", float(per_image.mean()), "test", len(first), (), *ends, about)


def _sign_flip(differences: NDArray[np.float64]) -> float:
    """How often differences [N] of random sign sum to as much as they do: p, two-sided.

    If nothing sets the two apart, each pair could as well have come the other way round (Fisher 1935). With one seed
    and right or wrong answers it is McNemar's exact test, up to the number of flips.
    """
    apart = differences[differences != 0]
    if not len(apart):
        return 1.0
    seen, chance = abs(float(apart.sum())) - 1e-9, noise.generator(0, 0, purpose=noise.FLIPS)
    as_far = 0
    for start in range(0, FLIPS, AT_ONCE):
        signs = 2.0 * chance.integers(0, 2, (min(AT_ONCE, FLIPS - start), len(apart)), dtype=np.int8) - 1
        as_far += int((np.abs(signs @ apart) >= seen).sum())
    return (as_far + 1) / (FLIPS + 1)


build = Paired

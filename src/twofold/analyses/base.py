"""What every analysis promises: a measure of tables of numbers that yields scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from twofold import registry
from twofold.errors import BadData
from twofold.records import Score


class Analysis(ABC):
    """A measure; it computes and yields, and neither prints nor writes.

    Attributes:
        needs: names of the tables it is given, float [N, D] each; those that end in `_labels` are int64 [N].
        same: what its tables share: `columns`, the same features of whichever images, or `rows`, the same images.
    """

    needs: tuple[str, ...]
    same: str = "columns"

    @abstractmethod
    def measure(self, tables: Mapping[str, NDArray[np.floating] | NDArray[np.int64]]) -> Iterator[Score]:
        """Yield the scores of these tables.

        Raises:
            BadData: a table is missing, or tables do not fit one another.
        """

    def check(self, tables: Mapping[str, NDArray[np.floating] | NDArray[np.int64]]) -> None:
        """Raise `BadData` where a table is missing or holds a value that is not finite."""
        lacking = [name for name in self.needs if name not in tables]
        if lacking:
            raise BadData(f"{type(self).__name__} lacks the table {lacking[0]!r}; it needs {', '.join(self.needs)}.")
        axis = ("rows", "columns").index(self.same)
        sizes = {tables[name].shape[axis] for name in self.needs if not name.endswith("_labels")}
        if len(sizes) > 1:
            told = " and ".join(map(str, sorted(sizes)))
            raise BadData(f"The tables have {told} {self.same}. Make them the same way.")
        for name in self.needs:
            if name.endswith("_labels") and len(tables[name]) != len(tables[name.removesuffix("_labels")]):
                raise BadData(f"The table {name!r} has not one label a row. Give one label a row.")
            if not np.isfinite(tables[name]).all():
                raise BadData(f"The table {name!r} holds values that are not finite. Make it again.")


def load(name: str) -> Analysis:
    """An analysis by the name of its file."""
    analysis: Analysis = registry.find("analyses", name).build()
    return analysis

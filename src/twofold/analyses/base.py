"""What every analysis promises: a measure of tables of numbers that yields scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold import registry
from twofold.errors import BadData
from twofold.records import Score
from twofold.tables import Unread

Table = NDArray[np.floating] | NDArray[np.int64] | Unread
PIECE = 2**22  # numbers of a table that are looked at together


class Analysis(ABC):
    """A measure; it computes and yields, and neither prints nor writes.

    Attributes:
        needs: names of the tables it is given, float [N, D] each; those that end in `_labels` are int64 [N]. A table
            may be in memory or on disk (`tables.Unread`); one that is to be read in `pieces` may be of any length.
        same: what its tables share: `columns`, the same features of whichever images, or `rows`, the same images.
        least: the fewest rows that a table must have.
    """

    needs: tuple[str, ...]
    same: str = "columns"
    least = 1

    @abstractmethod
    def measure(self, tables: Mapping[str, Table]) -> Iterator[Score]:
        """Yield the scores of these tables.

        Raises:
            BadData: a table is missing, or tables do not fit one another.
        """

    def check(self, tables: Mapping[str, Table]) -> None:
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
            if len(tables[name]) < self.least:
                raise BadData(
                    f"The table {name!r} has {len(tables[name])} rows; {type(self).__name__} needs {self.least}. "
                    "Give more images."
                )
            if not all(np.isfinite(piece).all() for piece in pieces(tables[name])):
                raise BadData(f"The table {name!r} holds values that are not finite. Make it again.")


def pieces(table: Table, most: int = PIECE) -> Iterator[NDArray[Any]]:
    """The rows of a table in order, as float64, some at a time: at most `most`."""
    rows = max(1, min(most, PIECE // max(1, int(np.prod(table.shape[1:])))))
    for start in range(0, len(table), rows):
        yield np.asarray(table[start : start + rows], dtype=np.float64)


def load(name: str) -> Analysis:
    """An analysis by the name of its file."""
    analysis: Analysis = registry.find("analyses", name).build()
    return analysis

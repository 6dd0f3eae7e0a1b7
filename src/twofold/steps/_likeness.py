"""From CKA of all pairs of cells to what people look at: maps of blocks, steps and pools, means, best matches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold import files
from twofold.analyses.cka import Sums
from twofold.plots import similarities
from twofold.plots.similarities import Panel
from twofold.records import Cell, Score, Tap, number_text
from twofold.steps._sides import Side

Matrix = NDArray[np.float64]
Measure = Callable[[Matrix], float]
MOST_PANELS = 8  # maps of a figure; of more, some are drawn, as far apart as can be
CSV_HEAD = ("row_block", "row_t", "row_pool", "column_block", "column_t", "column_pool", "cka")


@dataclass(frozen=True, eq=False)
class Pair:
    """Two sides, and where their cells stand among all.

    Attributes:
        name: of its files, `cka` or `cka-untrained`.
        row, column: the sides; they may be one.
        starts: the first number of each.
        control: whether it is there to be compared with.
    """

    name: str
    row: Side
    column: Side
    starts: tuple[int, int]
    control: bool = False

    def of(self, matrix: Matrix, rows: Sequence[Cell], columns: Sequence[Cell]) -> Matrix:
        """The part of CKA of all cells that says how alike these are."""
        places = [
            [start + side.cells.index(cell) for cell in cells]
            for start, side, cells in zip(self.starts, (self.row, self.column), (rows, columns), strict=True)
        ]
        found: Matrix = matrix[np.ix_(*places)]
        return found

    def whole(self, matrix: Matrix) -> Matrix:
        """All of its cells."""
        return self.of(matrix, self.row.cells, self.column.cells)

    def sigmas(self, steps: tuple[float | None, float | None]) -> list[float | None]:
        """Noise-to-signal ratios of a step of each side."""
        return [side.backbone.sigma(t) for side, t in zip((self.row, self.column), steps, strict=True)]

    @property
    def same(self) -> bool:
        """Whether both are the same network up to its weights: block b of one is block b of the other."""
        return _places(self.row) == _places(self.column)


@dataclass(frozen=True, eq=False)
class Look:
    """Blocks against blocks at one step and pool of each side.

    Attributes:
        t, pool: of rows and columns.
        rows, columns: the cells.
    """

    t: tuple[float | None, float | None]
    pool: int
    rows: tuple[Cell, ...]
    columns: tuple[Cell, ...]


def looks(pair: Pair) -> list[Look]:
    """P1's maps: the first step of one side against each of the other, then each further pool at the first steps."""
    rows, columns, pool = pair.row.steps, pair.column.steps, pair.row.pools[0]
    steps = [(rows[0], t) for t in columns] if len(columns) > 1 else [(t, columns[0]) for t in rows]
    shared = [p for p in pair.row.pools[1:] if p in pair.column.pools]
    found = [(t, pool) for t in steps] + [((rows[0], columns[0]), p) for p in shared]
    return [
        Look(t, p, _at(pair.row, t[0], p), _at(pair.column, t[1], p))
        for t, p in found
        if _at(pair.row, t[0], p) and _at(pair.column, t[1], p)
    ]


def scores(pair: Pair, sums: Sums, split: str, rows: int, about: dict[str, Any]) -> Iterator[Score]:
    """The mean of each look; of a network against itself also that of equal and of mirrored blocks, and of the rest.

    A further pool that every block has a map for has its change of the mean as well.
    """
    matrix, seen = sums.cka(), looks(pair)
    for look in seen:
        told = {
            **about, "models": [pair.row.model, pair.column.model], "control": pair.control, "steps": list(look.t),
            "sigmas": pair.sigmas(look.t), "pool": look.pool, "blocks": [len(look.rows), len(look.columns)],
        }  # fmt: skip
        found: dict[str, Measure] = {
            name: partial(_measured, pair, look, measure) for name, measure in _measures(pair, look).items()
        }
        if look.pool != seen[0].pool and _sized(look) == _sized(seen[0]):
            found["cka_pool_change"] = partial(_change, pair, seen[0], look)
        for name, statistic in found.items():
            yield Score(name, statistic(matrix), split, rows, (about["seed"],), *sums.interval(statistic), told)


def _measures(pair: Pair, look: Look) -> dict[str, Measure]:
    """Which numbers a look has, by name."""
    found: dict[str, Measure] = {"cka_mean": lambda values: float(values.mean())}
    if pair.same and [c.tap.block for c in look.rows] == [c.tap.block for c in look.columns]:
        found["cka_same"] = lambda values: float(np.diagonal(values).mean())
        if len(look.rows) > 3:
            found |= {"cka_mirrored": mirrored, "cka_unmirrored": unmirrored}
            # Of the same images, so that its interval is narrower than two intervals are apart.
            found["cka_mirror_gain"] = lambda values: mirrored(values) - unmirrored(values)
    return found


def _measured(pair: Pair, look: Look, measure: Measure, matrix: Matrix) -> float:
    return measure(pair.of(matrix, look.rows, look.columns))


def _sized(look: Look) -> tuple[int, int]:
    return len(look.rows), len(look.columns)


def _change(pair: Pair, first: Look, look: Look, matrix: Matrix) -> float:
    """How far the mean of a further pool lies above that of the first, on the same images and blocks."""
    one, other = (pair.of(matrix, seen.rows, seen.columns) for seen in (first, look))
    return float(other.mean() - one.mean())


def mirrored(matrix: Matrix) -> float:
    """The mean of blocks b and n + 1 - b, the middle one left out (P2's X)."""
    encoder = range(len(matrix) // 2)
    return float(np.mean([[matrix[b, -1 - b], matrix[-1 - b, b]] for b in encoder]))


def unmirrored(matrix: Matrix) -> float:
    """The mean of the other pairs of the first and the second half."""
    n, half = len(matrix), len(matrix) // 2
    pairs = [(b, c) for b in range(half) for c in range(n - half, n) if b + c != n - 1]
    return float(np.mean([[matrix[b, c], matrix[c, b]] for b, c in pairs]))


def matches(pair: Pair, matrix: Matrix) -> list[dict[str, Any]]:
    """For each block of the columns at the first look, the most alike block of the rows."""
    look = looks(pair)[0]
    shown = pair.of(matrix, look.rows, look.columns)
    return [
        {"block": column.tap.block, "best": look.rows[k].tap.block, "cka": round(float(shown[k, j]), 4)}
        for j, (column, k) in enumerate(zip(look.columns, shown.argmax(0).tolist(), strict=True))
    ]


def write(pair: Pair, matrix: Matrix, folder: Path) -> None:
    """All numbers of a pair, as arrays with their names (npz) and as lines of text (csv)."""
    values = pair.whole(matrix)
    names = [[str(cell) for cell in side.cells] for side in (pair.row, pair.column)]
    with files.replacing(folder / f"{pair.name}.npz") as temporary:
        np.savez(temporary, cka=values, rows=np.array(names[0]), columns=np.array(names[1]))
    lines = [
        (*_told(row), *_told(column), f"{values[i, j]:.6f}")
        for i, row in enumerate(pair.row.cells)
        for j, column in enumerate(pair.column.cells)
    ]
    files.write_csv(folder / f"{pair.name}.csv", [CSV_HEAD, *lines])


def draw(pair: Pair, matrix: Matrix, names: tuple[str, str], title: str, folder: Path) -> list[Path]:
    """The figures of a pair that have something to say; gives their PNGs, each with an SVG beside it."""
    kinds = {
        "blocks": ("block", _block_panels(pair, matrix)),
        "steps": ("noise step t", _axis_panels(pair, matrix, "t")),
        "pools": ("pool (side of the grid)", _axis_panels(pair, matrix, "pool")),
    }
    found = []
    for kind, (unit, panels) in kinds.items():
        if panels:
            kept = {round(k) for k in np.linspace(0, len(panels) - 1, MOST_PANELS).tolist()}
            panels = [panel for k, panel in enumerate(panels) if k in kept]
            path = folder / f"{pair.name}-{kind}.png"
            rows, columns = (f"{unit} of {name}" for name in names)
            similarities.maps(panels, rows, columns, title, [path, path.with_suffix(".svg")])
            found.append(path)
    return found


def _block_panels(pair: Pair, matrix: Matrix) -> list[Panel]:
    """One map a look."""
    several = len({look.pool for look in looks(pair)}) > 1
    panels = []
    for look in looks(pair):
        values = pair.of(matrix, look.rows, look.columns)
        told = [f"t = {_step(look.t[0])} × {_step(look.t[1])}"] if look.t != (None, None) else []
        told += [f"pool {look.pool}"] if several else []
        title = ", ".join([*told, f"mean {values.mean():z.2f}"])
        rows, columns = ([str(cell.tap.block) for cell in cells] for cells in (look.rows, look.columns))
        panels.append(Panel(title, values, rows, columns, matched=not pair.same and len(rows) > 1))
    return panels


def _axis_panels(pair: Pair, matrix: Matrix, axis: str) -> list[Panel]:
    """One map a block, of its steps or its pools; of different networks each block with its best match."""
    values = [sorted(getattr(side, "steps" if axis == "t" else "pools")) for side in (pair.row, pair.column)]
    if min(map(len, values)) < 2:
        return []
    best = {m["block"]: m["best"] for m in matches(pair, matrix)}
    panels = []
    for block in pair.column.blocks:
        other = block if pair.same else best.get(block)
        cells = [
            [_cell(side, b, axis, v) for v in own]
            for side, b, own in zip((pair.row, pair.column), (other, block), values, strict=True)
        ]
        if all(cell in pair.row.cells for cell in cells[0]) and all(cell in pair.column.cells for cell in cells[1]):
            title = _title(pair, other, block)
            rows, columns = ([_step(v) for v in own] for own in values)
            panels.append(Panel(title, pair.of(matrix, cells[0], cells[1]), rows, columns))
    return panels


def _cell(side: Side, block: Any, axis: str, value: Any) -> Cell:
    if axis == "t":
        return Cell(Tap(block, value), side.pools[0])
    return Cell(Tap(block, side.steps[0]), value)


def _title(pair: Pair, row: Any, column: int) -> str:
    name = pair.column.backbone.block(column).name
    return f"block {column} ({name[:18]})" if pair.same else f"blocks {row} × {column}"


def _at(side: Side, t: float | None, pool: int) -> tuple[Cell, ...]:
    """A side's cells at a step and pool, along the forward pass."""
    return tuple(sorted((c for c in side.cells if c.tap.t == t and c.pool == pool), key=lambda c: c.tap.block))


def _places(side: Side) -> list[tuple[int, str]]:
    return [(b.number, b.name) for b in side.backbone.blocks if b.number in side.blocks]


def _told(cell: Cell) -> tuple[str, str, str]:
    return str(cell.tap.block), _step(cell.tap.t) if cell.tap.t is not None else "", str(cell.pool)


def _step(value: float | None) -> str:
    return "clean" if value is None else number_text(value)

"""CKA: time and memory of comparing all blocks of one network with all of another, beside the pair-by-pair way.

    python bench/compare.py [--rows 10000] [--minibatch 256] [--pool 1] [--rounds 3] [--pairs 9]

Two stores as `compare` makes them of ADM-256: 37 blocks each with its channels (x pool^2), float16, correlated random
numbers. `pair by pair` reads both tables of a pair and makes the Gram matrices of all minibatches for that pair alone,
with the same estimator; it is timed on some pairs, and its time for all of them is what that many would take. Seconds
are the processor's. Memory is what a process of its own grows by.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from twofold import results, store
from twofold.analyses import cka
from twofold.records import Cell, Tap
from twofold.store import Store

# Channels of ADM-256's 37 blocks (PAPER.md 1.2): 18 down, the middle, 18 up.
DOWN = (256,) * 7 + (512,) * 6 + (1024,) * 5
UP = (1024,) * 6 + (512,) * 6 + (256,) * 6
CHANNELS = (*DOWN, 1024, *UP)
SHARED = 32  # directions that all blocks have in common
MEASURE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
import compare
def held():
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
stores = [compare.store.load(Path(folder)) for folder in sys.argv[1:3]]
compare.ours(stores, 1000000, rows=1)  # what libraries take once
before = held()
compare.ours(stores, int(sys.argv[3]))
print(before, held())
"""


def cells(pool: int) -> list[Cell]:
    return [Cell(Tap(k + 1, 90.0), pool) for k in range(len(CHANNELS))]


def filled(folder: Path, rows: int, pool: int, seed: int) -> Store:
    """37 tables whose rows share SHARED numbers, seen through a random projection each."""
    opened = store.make(folder, {"dtype": "float16", "seed": seed}, {})
    opened.begin_split("val", np.zeros(rows, np.int64), np.arange(rows))
    for cell, channels in zip(cells(pool), CHANNELS, strict=True):
        width = channels * pool**2
        opened.begin_cell("val", cell, (width,), {})
        network = np.random.default_rng(1000 + cell.tap.block)
        turn = network.standard_normal((SHARED, width), dtype=np.float32)
        noise = np.random.default_rng([seed, cell.tap.block])
        for number, own in enumerate(opened.chunk_rows("val")):
            shared = np.random.default_rng(number).standard_normal((len(own), SHARED), dtype=np.float32)
            values = shared @ turn + 5 * noise.standard_normal((len(own), width), dtype=np.float32)
            opened.write_chunk("val", cell, number, values)
    return opened


def ours(stores: list[Store], least: int, rows: int | None = None) -> cka.Matrix:
    """As `compare` does; `rows`: of the first chunk alone."""
    from twofold.steps import _sides

    columns = [(opened, cell) for opened in stores for cell in opened.begun("val")]
    if rows is not None:
        some = [opened.rows("val", cell, [0])[:8] for opened, cell in columns[:2]]
        return cka.of_tables(some).cka()
    return _sides.of_columns(columns, "val", least).cka()


def pair_by_pair(stores: list[Store], pairs: list[tuple[Cell, Cell]], least: int) -> list[float]:
    """Each pair by itself, both of its tables read for it."""
    from twofold.steps import _sides

    both = [[(stores[0], row), (stores[1], column)] for row, column in pairs]
    return [float(_sides.of_columns(pair, "val", least).cka()[0, 1]) for pair in both]


def seconds(work: object) -> tuple[float, object]:
    started = time.process_time()
    found = work()  # type: ignore[operator]
    return time.process_time() - started, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, default in (("rows", 10_000), ("minibatch", 256), ("pool", 1), ("rounds", 3), ("pairs", 9)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("first", "second")]
        stores = [filled(folder, asked.rows, asked.pool, seed) for seed, folder in enumerate(folders)]
        size = sum(c * asked.pool**2 for c in CHANNELS) * asked.rows * 2 * 2
        blocks = cells(asked.pool)
        places = np.linspace(0, len(blocks) - 1, round(asked.pairs**0.5)).round().astype(int).tolist()
        pairs = [(blocks[i], blocks[j]) for i in places for j in places]
        fast, slow, furthest = [], [], 0.0
        for _ in range(asked.rounds):
            took, matrix = seconds(lambda: ours(stores, asked.minibatch))
            fast.append(took)
            took, alone = seconds(lambda: pair_by_pair(stores, pairs, asked.minibatch))
            slow.append(took * len(blocks) ** 2 / len(pairs))
            whole = np.asarray(matrix)[: len(blocks), len(blocks) :]
            furthest = max(
                furthest, float(np.abs([whole[i, j] for i in places for j in places] - np.array(alone)).max())
            )
        told = subprocess.run(
            [sys.executable, "-c", MEASURE, *map(str, folders), str(asked.minibatch), str(Path(__file__).parent)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        before, most = (int(n) / 1e6 for n in told.stdout.split()[-2:])
    one, many = statistics.median(fast), statistics.median(slow)
    print(f"{asked.rows:,} rows, {len(blocks)} x {len(blocks)} blocks, two stores of {size / 1e6:,.0f} MB together")
    rows = [
        ("", "s, median", "s, all rounds", "ratio", "memory, MB"),
        ("one reading", f"{one:.1f}", ", ".join(f"{s:.1f}" for s in fast), "1", f"{most - before:,.0f}"),
        (f"pair by pair, from {len(pairs)} pairs", f"{many:,.0f}", ", ".join(f"{s:,.0f}" for s in slow),
         f"{many / one:.0f}", "not measured"),
    ]  # fmt: skip
    print(results.table(rows))
    print(f"largest difference between both: {furthest:.1g}")


if __name__ == "__main__":
    main()

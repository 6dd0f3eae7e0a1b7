"""Stores: how fast rows are written and read beside a plain .npy file, and whether memory grows with their number.

    python bench/store.py [--rows 102400] [--width 1024] [--rounds 5] [--folder DIR]
    python bench/store.py --memory [--images 10000,100000]

Both sides of a ratio are measured in turn in every round, and ratios are medians of rounds. Written files stay in the
page cache unless a line says `on disk`: there the file system is flushed (syncfs) after writing, and files are dropped
from the cache before reading.
`rows` are float16 as they are kept. `features` and `table` are what extraction writes and heads get, float32: `.npy`
beside them is np.save(rows.astype(float16)) and np.load(...).astype(float32). The last
column holds on a busy machine too.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twofold import results, store
from twofold.records import Cell, Tap

CELL = Cell(Tap(1, 20.0), 1)
KEY = {"backbone": "b", "dtype": "float16"}
ABOUT = {"block": 1, "name": "x", "t": 20.0, "sigma": 0.1, "pool": 1}


def rate(works: list[Callable[[], object]], bytes_: int) -> tuple[float, float]:
    """Megabytes of float16 a second, and a second of the processor (of all threads together)."""
    started, busy = time.perf_counter(), time.process_time()
    for work in works:
        work()
    return bytes_ / 1e6 / (time.perf_counter() - started), bytes_ / 1e6 / (time.process_time() - busy)


class Files:
    """The same rows as a store and as a .npy file."""

    def __init__(self, folder: Path, rows: NDArray[np.float32]) -> None:
        self.folder, self.rows, self.half = folder, rows, rows.astype(np.float16)
        self.npy, self.store = folder / "rows.npy", folder / "store"

    def fresh(self) -> None:
        self.npy.unlink(missing_ok=True)
        shutil.rmtree(self.store, ignore_errors=True)
        self.opened = store.make(self.store, KEY, {})
        self.opened.begin_split("train", np.zeros(len(self.rows), np.int64), np.arange(len(self.rows)))
        self.opened.begin_cell("train", CELL, (self.rows.shape[1],), ABOUT)

    def write_npy(self) -> None:
        np.save(self.npy, self.half)

    def write_store(self) -> None:
        for number, rows in enumerate(self.opened.chunk_rows("train")):
            self.opened.arrays.write(store.column("train", CELL), number, self.half[rows[0] : rows[-1] + 1])

    def features_npy(self) -> None:
        np.save(self.npy, self.rows.astype(np.float16))

    def features_store(self) -> None:
        for number, rows in enumerate(self.opened.chunk_rows("train")):
            self.opened.write_chunk("train", CELL, number, self.rows[rows[0] : rows[-1] + 1])

    def read_npy(self) -> None:
        np.load(self.npy)

    def read_store(self) -> None:
        self.opened.arrays.values(store.column("train", CELL))

    def table_npy(self) -> None:
        np.load(self.npy).astype(np.float32)

    def table_store(self) -> None:
        self.opened.read("train", CELL)

    def flush(self) -> None:
        handle = os.open(self.folder, os.O_RDONLY)
        ctypes.CDLL(None).syncfs(handle)
        os.close(handle)

    def drop(self) -> None:
        """Out of the page cache, whatever was flushed."""
        for file in [self.npy, *(f for f in self.store.rglob("*") if f.is_file())]:
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def speeds(files: Files, rounds: int) -> str:
    bytes_ = files.rows.size * 2
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "write rows": (files.write_store, files.write_npy),
        "write features": (files.features_store, files.features_npy),
        "read rows": (files.read_store, files.read_npy),
        "read table": (files.table_store, files.table_npy),
    }
    disk = {f"{what}, on disk": pairs[what] for what in ("write rows", "write features", "read rows", "read table")}
    found: dict[str, list[tuple[tuple[float, float], tuple[float, float]]]] = {}
    for k in range(rounds):
        for what, (ours, theirs) in {**pairs, **disk}.items():
            if what.startswith("write"):
                files.fresh()
            measured = []
            for work in (ours, theirs) if k % 2 else (theirs, ours):
                if what.endswith("on disk") and what.startswith("read"):
                    files.drop()
                flushed = what.startswith("write") and what.endswith("on disk")
                measured.append((work, rate([work, files.flush] if flushed else [work], bytes_)))
            rates = dict(measured)
            found.setdefault(what, []).append((rates[ours], rates[theirs]))
    lines = [("", "store, MB/s", ".npy, MB/s", "of .npy", "lowest to highest", "of .npy, processor time")]
    for what, both in found.items():
        ratios, busy = ([a[k] / b[k] for a, b in both] for k in (0, 1))
        mine, other = (statistics.median(side[0] for side in sides) for sides in zip(*both, strict=True))
        told = f"{min(ratios):.2f} to {max(ratios):.2f}"
        middle = (f"{statistics.median(values):.2f}" for values in (ratios, busy))
        lines.append((what, f"{mine:,.0f}", f"{other:,.0f}", next(middle), told, next(middle)))
    return results.table(lines)


# A process of its own: images are digits again and again, made when they are read.
EXTRACT = """
import sys
from pathlib import Path
import numpy as np
from twofold.backbones import base as backbones
from twofold.datasets import base as datasets
from twofold.records import Cell, Tap
from twofold.steps import _cells, _fill

count, out = int(sys.argv[1]), Path(sys.argv[2])
digits = datasets.load("digits")
inner = digits.build("train")

class Many(datasets.Dataset):
    name, classes, fingerprint, image_size, channels = f"digits x {count}", digits.classes, str(count), 8, 1
    def build(self, split):
        at = np.arange(count)
        return datasets.Rows(inner.labels[at % len(inner)], at, lambda rows: inner.read(np.asarray(rows) % len(inner)))

backbone = backbones.load(sys.argv[3], device="cpu", precision="fp32")
reading = _fill.Reading(batch=64)
wanted = _cells.asked(backbone, ["mid"], [20.0, 100.0], [1, 2])
target = _fill.open_store(out, backbone, Many(), reading)
assert _fill.fill(target, backbone, Many(), ["train"], wanted, reading) == 2 * count
with open("/proc/self/status") as status:
    print(1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))
"""


def memory(counts: list[int], folder: Path) -> str:
    run = folder / "run"
    small = ["--images", "512", "--widths", "16,16", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "twofold.cli", "pretrain", "--data", "digits", "--out", str(run), *small],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    lines, first = [("images", "most memory, MB", "of the first")], 0.0
    for count in counts:
        arguments = [str(count), str(folder / str(count)), f"run:{run}"]
        done = subprocess.run([sys.executable, "-c", EXTRACT, *arguments], check=True, capture_output=True, text=True)
        most = int(done.stdout) / 1e6
        first = first or most
        lines.append((f"{count:,}", f"{most:,.1f}", f"{most / first:.3f}"))
    return results.table(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=102_400)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure; none: the temporary folder")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--images", default="10000,100000")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        if given.memory:
            print(memory([int(n) for n in given.images.split(",")], Path(made)))
            return
        rows = np.random.default_rng(0).standard_normal((given.rows, given.width), dtype=np.float32)
        print(speeds(Files(Path(made), rows), given.rounds))


if __name__ == "__main__":
    main()

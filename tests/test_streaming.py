"""Tables that do not fit in memory: read in pieces, with the same answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from twofold import store, tables
from twofold.errors import BadStore
from twofold.records import Cell, Tap
from twofold.store import Store

CELL = Cell(Tap(1, None), 1)
SPLITS = ("train", "val", "test")


def filled(folder: Path, counts: dict[str, int], columns: int, classes: int) -> Store:
    """A store of correlated features of overlapping classes."""
    made = store.make(folder, {"dtype": "float16"}, {})
    chance = np.random.default_rng(0)
    mix = chance.standard_normal((16, columns)).astype(np.float32)
    means = chance.standard_normal((classes, 16)).astype(np.float32)
    for split, count in counts.items():
        labels = chance.integers(0, classes, count)
        made.begin_split(split, labels, np.arange(count))
        made.begin_cell(split, CELL, (columns,), {})
        for number, rows in enumerate(made.chunk_rows(split)):
            hidden = means[labels[rows]] + chance.standard_normal((len(rows), 16), np.float32)
            values = hidden @ mix + chance.standard_normal((len(rows), columns), np.float32)
            made.write_chunk(split, CELL, number, values)
    return made


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filled(tmp_path_factory.mktemp("store") / "small", {"train": 1300, "val": 700, "test": 600}, 24, 3)


def test_tables_stay_on_disk_where_they_do_not_fit(small: Store) -> None:
    size = 2600 * 24 * 2
    whole, unread = small.tables(SPLITS, CELL, size), small.tables(SPLITS, CELL, size - 1)
    for split in SPLITS:
        assert isinstance(whole[split].x, np.ndarray) and whole[split].x.dtype == np.float16
        assert isinstance(unread[split].x, tables.Unread) and unread[split].x.memory == (size - 1) // 4
        np.testing.assert_array_equal(whole[split].x, small.read(split, CELL).x)
        np.testing.assert_array_equal(unread[split].x, whole[split].x)
        np.testing.assert_array_equal(unread[split].y, whole[split].y)


def test_rows_are_those_of_an_array(small: Store) -> None:
    """Slices and numbers of tables on disk, below one another, and of some of their rows."""
    train, val, _ = (t.x for t in small.tables(SPLITS, CELL, 1000).values())
    one, other = (small.read(split, CELL).x for split in ("train", "val"))
    chosen = np.array([1999, 3, 1299, 1300, 700, 3])
    rows = np.array([1950, 2, 0, 1300, 2])
    joined, both = tables.below([train, val]), np.concatenate([one, other])
    some = tables.some(joined, np.arange(1, 2000))
    for table, array in ((train, one), (joined, both), (tables.below([train, other]), both), (some, both[1:])):
        assert isinstance(table, tables.Unread) and table.shape == array.shape and len(table) == len(array)
        for key in (slice(None), slice(5, 17), slice(1290, 1310), slice(3, 3), slice(0, 9, 2), rows % len(array)):
            np.testing.assert_array_equal(table[key], array[key])
    few = tables.some(joined, chosen[:2])
    assert isinstance(few, np.ndarray) and np.array_equal(few, both[chosen[:2]])


def test_a_damaged_chunk_is_named_when_it_is_read(tmp_path: Path) -> None:
    made = filled(tmp_path / "damaged", {"train": 1300}, 24, 3)
    chunk = tmp_path / "damaged" / "train" / "features" / str(CELL) / "c" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes()[:99])
    train = made.tables(("train",), CELL, 1000)["train"].x
    assert train[:512].shape == (512, 24)
    with pytest.raises(BadStore, match=f"train/features/{CELL} is damaged"):
        train[512:600]


def test_probe_and_select_under_a_limit_say_the_same(
    tiny_run: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    where = ["--model", tiny_run, "--data", "digits"]
    heads = "ridge,logistic,knn,linear?rate=0.01&updates=60&epochs=1"
    told = []
    for name, limit in (("whole", "auto"), ("pieces", "0.0001")):
        how = ["--memory", limit, "--json"]
        place = ["--block", "mid", "--t", "30", "--controls", "none", "--head", heads]
        code, out, err = command("probe", *where, *place, *how, "--out", tmp_path / f"probe-{name}")
        assert code == 0, err
        scores = json.loads(out)["scores"]
        cells = ["--blocks", "mid", "--t", "30", "--pool", "1"]
        code, out, err = command("select", *where, *how, *cells, "--out", tmp_path / f"select-{name}")
        assert code == 0, err
        told.append(
            ([(s["about"]["head"], s["value"], s["about"]["chosen"]) for s in scores], json.loads(out)["accuracy"])
        )
    assert told[0] == told[1] and len(told[0][0]) == 4


def test_memory_is_checked(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    where = ["--model", "pixels", "--data", "digits", "--out", tmp_path / "run"]
    code, _, err = command("select", *where, "--memory", "0")
    assert code == 2 and "--memory must be at least" in err


# The most memory of this very process; getrusage would count what its parent held when it was started.
LIMITED = """
import sys, json
import numpy as np
from pathlib import Path
from twofold import store
from twofold.records import Cell, Tap
from twofold.steps import _trials
from test_streaming import CELL, SPLITS, filled

def kilobytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

HEADS = (
    "ridge", "logistic?strengths=(1e-4,)&tolerance=1e-3", "knn?neighbours=(5,)",
    "linear?rate=0.003&decay=0.01&epochs=1&updates=0",
)
whole = store.load(Path(sys.argv[1]))
small = filled(Path(sys.argv[2]), {split: 2000 for split in SPLITS}, 256, 5)
def answers(opened, memory, head):
    read = lambda seed: [opened.tables(SPLITS, CELL, memory)]
    return _trials.run(read, head, 0, [0])
for head in HEADS:  # libraries load, and their pools grow, once
    answers(small, 10**6, head)
Path("/proc/self/clear_refs").write_text("5")  # forget the most that importing took
before = kilobytes("VmRSS")
pieces = {head: answers(whole, 20 * 10**6, head) for head in HEADS}
grown = kilobytes("VmHWM") - before
same = {}
for head, found in pieces.items():
    other = answers(whole, 10**10, head)
    apart = np.abs(found.confidence - other.confidence).max()
    same[head] = [float((found.predicted == other.predicted).mean()), float(apart)]
print(json.dumps({"grown": grown * 1024, "same": same}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux tells it")
def test_a_table_larger_than_what_the_process_grows_by(tmp_path: Path) -> None:
    rows, columns = 180_000, 256
    filled(tmp_path / "large", {"train": rows, "val": 300, "test": 300}, columns, 5)
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "large"), str(tmp_path / "small")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    # Held whole it takes its own size (float16) and more; pieces, pools and heads take 35 to 60 MB of any table.
    assert told["grown"] < 0.8 * rows * columns * 2, told
    for head, (equal, apart) in told["same"].items():
        assert equal == 1 and apart < 1e-6, (head, equal, apart)

"""Heads beside scikit-learn's: time to the same answer, and memory as a multiple of the table.

    python bench/heads.py [--rows 50000] [--classes 10,50] [--rounds 3] [--threads 1] [--parts ridge,logistic,...]

The table is synthetic: columns that are correlated (variances along principal directions fall as a power), offsets
and a nonlinearity as features have them, and classes that overlap. It is given to every contender as it is stored, in
float16 for ours; scikit-learn gets what it reads fastest, standardised float32, and that conversion is not counted.

In every round each contender runs once, beside its rival; ratios are taken within a round, and the table gives
medians and the range. Seconds are of the processor (all threads), with `--wall` of the clock: on a machine that
others use too, the processor's tell more. Memory is measured in a process of its own for each line: the most that it
held while it learned and answered, less what it held before, over the size of the float16 table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

STRENGTHS = 40
TOLERANCE = 1e-4  # scikit-learn's own
NEIGHBOURS = 20
COLUMNS = 1024
HEADS = 60


@dataclass
class Data:
    """A table and its held-out rows."""

    x: Any
    y: Any
    held_x: Any
    held_y: Any


def synthetic(rows: int, classes: int) -> Data:
    """Correlated features float16 [N, 1024] with labels that no linear head gets all right; a tenth is held out."""
    import numpy as np
    import torch

    chance = torch.Generator().manual_seed(0)
    hidden = COLUMNS // 4
    spread = torch.arange(1, hidden + 1) ** -0.5
    mix = torch.randn(hidden, COLUMNS, generator=chance) * spread[:, None]
    mix /= mix.square().sum(0).sqrt()
    offset = torch.randn(COLUMNS, generator=chance)
    teacher = torch.randn(hidden, classes, generator=chance) * spread[:, None]
    teacher *= 3 / teacher.square().sum(0).sqrt()
    held = max(rows // 10, classes)
    x = np.empty((rows + held, COLUMNS), np.float16)
    y = np.empty(rows + held, np.int64)
    for start in range(0, len(x), 4096):
        there = slice(start, min(start + 4096, len(x)))
        count = there.stop - there.start
        cause = torch.randn(count, hidden, generator=chance)
        noise = 0.1 * torch.randn(count, COLUMNS, generator=chance)
        x[there] = (torch.nn.functional.silu(cause @ mix + offset) + noise).numpy()
        gumbel = -torch.empty(count, classes).exponential_(generator=chance).log()
        y[there] = (cause @ teacher + gumbel).argmax(1).numpy()
    return Data(x[:rows], y[:rows], x[rows:], y[rows:])


@dataclass
class Line:
    """One line of the table: ours, the rival, and what must be equal."""

    what: str
    rival: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    same: Callable[[Any, Any], str]
    bar: str


@dataclass
class Scaled:
    """What scikit-learn reads: the same rows, standardised as our heads do it, float32."""

    x: Any
    held: Any


def standardised(data: Data) -> Scaled:
    import numpy as np

    from twofold.heads._standard import Scale

    scale = Scale.of(data.x)
    return Scaled(*(np.concatenate([x.numpy().copy() for _, x in scale.pieces(t)]) for t in (data.x, data.held_x)))


def ridge_line(data: Data, scaled: Scaled) -> Line:
    """Ours chooses on the held-out rows, theirs by leaving out each row in turn, which is the fastest it knows."""
    import numpy as np
    from sklearn.linear_model import RidgeClassifierCV

    from twofold.heads.ridge import Ridge

    strengths = tuple(float(s) for s in np.logspace(-5, 2, STRENGTHS))

    def theirs() -> Any:
        unit = float(np.square(scaled.x, dtype=np.float64).sum()) / COLUMNS
        return RidgeClassifierCV([s * unit for s in strengths]).fit(scaled.x, data.y)

    def same(ours: Any, theirs: Any) -> str:
        # The weights that scikit-learn finds for the strength that ours chose.
        from sklearn.linear_model import Ridge as Theirs

        unit = float(np.square(scaled.x, dtype=np.float64).sum()) / COLUMNS
        target = np.eye(len(ours.classes_))[np.searchsorted(ours.classes_, data.y)]
        exact = Theirs(ours.strength_ * unit).fit(scaled.x.astype(np.float64), target).coef_.T
        apart = np.abs(ours.weight_ - exact).max() / np.abs(exact).max()
        right = [float((f == data.held_y).mean()) for f in (ours.predict(data.held_x), theirs.predict(scaled.held))]
        return f"weights {apart:.0e} apart, held-out accuracy {right[0]:.4f} and {right[1]:.4f}"

    def ours() -> Any:
        return Ridge(strengths).fit(data.x, data.y, val=(data.held_x, data.held_y))

    return Line(f"ridge, {STRENGTHS} strengths", "RidgeClassifierCV", ours, theirs, same, "20")


def logistic_theirs(data: Data, scaled: Scaled, c: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return LogisticRegression(C=c, tol=TOLERANCE, max_iter=10**5).fit(scaled.x, data.y)


def loss(data: Data, scaled: Scaled, weight: Any, bias: Any, c: float) -> float:
    """The objective divided by C N, in double precision."""
    import numpy as np

    total = 0.0
    for start in range(0, len(scaled.x), 4096):
        there = slice(start, start + 4096)
        s = scaled.x[there].astype(np.float64) @ weight + bias
        s -= s.max(1, keepdims=True)
        total += float((np.log(np.exp(s).sum(1)) - s[np.arange(len(s)), data.y[there]]).sum())
    return (total + float(np.square(weight).sum()) / (2 * c)) / len(scaled.x)


def logistic_line(data: Data, scaled: Scaled, c: float) -> Line:
    from twofold.heads.logistic import Logistic

    def same(ours: Any, theirs: Any) -> str:
        found = [
            loss(data, scaled, w, b, c) for w, b in ((ours.weight_, ours.bias_), (theirs.coef_.T, theirs.intercept_))
        ]
        return f"loss {found[0]:.6f} and {found[1]:.6f}, {theirs.n_iter_[0]} iterations"

    return Line(
        f"logistic, C = {c:g}", "LogisticRegression", lambda: Logistic((c,), TOLERANCE).fit(data.x, data.y),
        partial(logistic_theirs, data, scaled, c), same, "3",
    )  # fmt: skip


def path_line(data: Data, scaled: Scaled, classes: int) -> Line:
    """All solutions of the path, to the tolerance that scikit-learn has."""
    import numpy as np
    import torch

    from twofold.heads._standard import Scale
    from twofold.heads.logistic import Solver

    strengths = [float(c) for c in np.logspace(-4, 1, STRENGTHS)]

    def ours() -> Any:
        positions = torch.from_numpy(np.unique(data.y, return_inverse=True)[1])
        return list(Solver(Scale.of(data.x), data.x, positions, classes, 500).path(strengths, TOLERANCE))

    def same(ours: Any, theirs: Any) -> str:
        gaps = [
            loss(data, scaled, w[:-1].numpy(), w[-1].numpy(), c) - loss(data, scaled, m.coef_.T, m.intercept_, c)
            for w, m, c in zip(ours, theirs, strengths, strict=True)
        ]
        return f"loss less theirs {min(gaps):.1e} to {max(gaps):.1e}"

    def theirs() -> Any:
        return [logistic_theirs(data, scaled, c) for c in strengths]

    return Line(f"logistic, {STRENGTHS} strengths", f"{STRENGTHS} LogisticRegression", ours, theirs, same, "15")


def nearest_line(data: Data, scaled: Scaled) -> Line:
    """Rows of length one, where the nearest by distance are the nearest by cosine, and the same weights of votes."""
    import numpy as np
    from sklearn.neighbors import KNeighborsClassifier

    from twofold.heads.knn import TEMPERATURE, NearestNeighbours

    def ours() -> Any:
        return NearestNeighbours((NEIGHBOURS,)).fit(data.x, data.y).predict(data.held_x)

    def weights(distances: Any) -> Any:
        return np.exp((distances.min(1, keepdims=True) ** 2 - distances**2) / 2 / TEMPERATURE)

    def theirs() -> Any:
        unit, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (scaled.x, scaled.held))
        return KNeighborsClassifier(NEIGHBOURS, weights=weights).fit(unit, data.y).predict(asked)

    def same(ours: Any, theirs: Any) -> str:
        return f"equal answers {float((ours == theirs).mean()):.4f}"

    return Line(f"k-NN, k = {NEIGHBOURS}", "KNeighborsClassifier", ours, theirs, same, "1, aim 2")


def lines(data: Data, classes: int, parts: list[str]) -> Iterator[Line]:
    scaled = standardised(data)
    if "ridge" in parts:
        yield ridge_line(data, scaled)
    if "logistic" in parts:
        yield from (logistic_line(data, scaled, c) for c in (0.01, 1.0))
    if "path" in parts:
        yield path_line(data, scaled, classes)
    if "knn" in parts:
        yield nearest_line(data, scaled)


def seconds(work: Callable[[], Any], clock: Callable[[], float]) -> tuple[float, Any]:
    started = clock()
    result = work()
    return clock() - started, result


def compared(line: Line, rounds: int, clock: Callable[[], float]) -> list[str]:
    """A line of the table."""
    times: list[tuple[float, float]] = []
    told = ""
    for k in range(rounds):
        order = ("ours", "theirs") if k % 2 else ("theirs", "ours")
        found = {name: seconds(getattr(line, name), clock) for name in order}
        times.append((found["ours"][0], found["theirs"][0]))
        told = line.same(found["ours"][1], found["theirs"][1])
        del found
    ratios = [theirs / ours for ours, theirs in times]
    ours, theirs = (statistics.median(t[k] for t in times) for k in (0, 1))
    shown = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
    return [line.what, line.rival, f"{ours:.2f}", f"{theirs:.2f}", shown, line.bar, told]


def memory(rows: int, classes: int, part: str, threads: int) -> float:
    """Growth of a fresh process while a head of ours works, over the size of the table."""
    command = [sys.executable, __file__, "--rows", str(rows), "--classes", str(classes), "--threads", str(threads)]
    done = subprocess.run([*command, "--grow", part], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def growth(rows: int, classes: int, part: str) -> float:
    """In this process: what `memory` asks for."""
    from twofold.heads.base import Head
    from twofold.heads.knn import NearestNeighbours
    from twofold.heads.linear import Linear
    from twofold.heads.logistic import Logistic
    from twofold.heads.ridge import Ridge

    small, data = synthetic(3000, classes), synthetic(rows, classes)
    made: dict[str, Callable[[], Head]] = {
        "ridge": Ridge, "logistic": Logistic, "knn": NearestNeighbours,
        "linear": lambda: Linear(epochs=1, updates=0),
    }  # fmt: skip
    # Libraries load and pools grow once; that is not the table's doing.
    made[part]().fit(small.x, small.y, val=(small.held_x, small.held_y))
    Path("/proc/self/clear_refs").write_text("5")  # forget the most so far
    before = held_now()
    made[part]().fit(data.x, data.y, val=(data.held_x, data.held_y)).predict(data.held_x)
    grown: float = (held_at_most() - before) / data.x.nbytes
    return grown


def held_now() -> int:
    return _status("VmRSS")


def held_at_most() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    with Path("/proc/self/status").open() as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith(name))


def candidates(data: Data, classes: int, rounds: int, clock: Callable[[], float], epochs: int) -> list[str]:
    """Sixty linear heads in one pass beside one, and beside sixty one after the other (of which six are run)."""
    from dataclasses import replace

    import numpy as np
    import torch
    from torch import nn

    from twofold.heads import _training

    grid = tuple(_training.Candidate(r, d) for r in np.logspace(-4, -2, 15) for d in (0.0, 0.01, 0.1, 1.0))
    recipe = replace(_training.RECIPES["strong"], epochs=epochs, updates=0)
    answers = torch.from_numpy(np.unique(data.y, return_inverse=True)[1])
    mean = torch.from_numpy(data.x[:4096].mean(0, dtype=np.float32))

    def rows(wanted: Any) -> Any:
        return (torch.from_numpy(data.x[numbers.numpy()]).float() - mean for numbers in wanted)

    def train(some: tuple[Any, ...]) -> Any:
        return _training.train(lambda: nn.Linear(COLUMNS, classes), rows, answers, replace(recipe, candidates=some), 0)

    def in_turn(some: tuple[Any, ...]) -> Any:
        return [train((candidate,)) for candidate in some]

    assert len(grid) == HEADS
    one, all_, each = [], [], []
    for k in range(rounds):
        one.append(seconds(partial(train, grid[k : k + 1]), clock)[0])
        all_.append(seconds(partial(train, grid), clock)[0])
        each.append(HEADS / 6 * seconds(partial(in_turn, grid[::10]), clock)[0])
    ratios = [a / b for a, b in zip(all_, one, strict=True)]
    saved = [a / b for a, b in zip(each, all_, strict=True)]
    shown = f"{statistics.median(saved):.1f} ({min(saved):.1f} to {max(saved):.1f})"
    told = f"one head {statistics.median(one):.2f} s: all in {statistics.median(ratios):.1f} of it (at most 3)"
    middle = [f"{statistics.median(all_):.2f}", f"{statistics.median(each):.2f}", shown, ""]
    return [f"linear, {HEADS} heads, {epochs} epochs", "one after the other", *middle, told]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--classes", default="10,50")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch and of scikit-learn's BLAS")
    parser.add_argument("--parts", default="ridge,logistic,path,knn,linear,memory")
    parser.add_argument("--epochs", type=int, default=1, help="of the linear heads")
    parser.add_argument("--wall", action="store_true", help="seconds of the clock in place of the processor's")
    parser.add_argument("--grow", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(given.threads)  # before anything imports a BLAS
    if given.grow:
        print(json.dumps(growth(given.rows, int(given.classes), given.grow)))
        return
    import torch

    from twofold import results

    clock = time.perf_counter if given.wall else time.process_time
    parts = given.parts.split(",")
    print(
        f"{given.rows} x {COLUMNS} float16, {given.threads} threads, torch {torch.__version__}, {given.rounds} rounds"
    )
    for classes in (int(k) for k in given.classes.split(",")):
        data = synthetic(given.rows, classes)
        rows = [[f"{classes} classes", "beside", "s", "theirs, s", "ratio", "bar", "the same answer"]]
        for line in lines(data, classes, parts):
            rows.append(compared(line, given.rounds, clock))
            print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
        if "linear" in parts:
            rows.append(candidates(data, classes, given.rounds, clock, given.epochs))
        print(results.table(rows), "", sep="\n", flush=True)
        if "memory" in parts:
            for part in ("ridge", "logistic", "knn", "linear"):
                print(f"{part}: grows by {memory(given.rows, classes, part, given.threads):.2f} of the table")


if __name__ == "__main__":
    main()

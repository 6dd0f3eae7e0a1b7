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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

STRENGTHS = 40
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


def lines(data: Data, classes: int, parts: list[str]) -> list[Line]:
    import numpy as np
    from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
    from sklearn.neighbors import KNeighborsClassifier

    from twofold.heads._standard import Scale
    from twofold.heads.knn import NearestNeighbours
    from twofold.heads.logistic import Logistic
    from twofold.heads.ridge import Ridge

    scale = Scale.of(data.x)
    scaled, held = (np.concatenate([x.numpy().copy() for _, x in scale.pieces(t)]) for t in (data.x, data.held_x))
    val = (data.held_x, data.held_y)
    strengths = tuple(float(s) for s in np.logspace(-5, 2, STRENGTHS))
    cs = tuple(float(c) for c in np.logspace(-4, 1, STRENGTHS))
    tolerance = 1e-4

    def ridge_theirs() -> Any:
        unit = float(np.square(scaled, dtype=np.float64).sum()) / COLUMNS
        return RidgeClassifierCV([s * unit for s in strengths]).fit(scaled, data.y)

    def ridge_same(ours: Any, theirs: Any) -> str:
        right = [float((f == data.held_y).mean()) for f in (ours.predict(data.held_x), theirs.predict(held))]
        return f"held-out accuracy {right[0]:.4f} and {right[1]:.4f}"

    def logistic_theirs(c: float) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return LogisticRegression(C=c, tol=tolerance, max_iter=10**5).fit(scaled, data.y)

    def loss(weight: Any, bias: Any, c: float) -> float:
        total = 0.0
        for start in range(0, len(scaled), 4096):
            there = slice(start, start + 4096)
            s = scaled[there].astype(np.float64) @ weight + bias
            s -= s.max(1, keepdims=True)
            total += float((np.log(np.exp(s).sum(1)) - s[np.arange(len(s)), data.y[there]]).sum())
        return total / len(scaled) + float(np.square(weight).sum()) / (2 * c * len(scaled))

    def logistic_same(c: float) -> Callable[[Any, Any], str]:
        def told(ours: Any, theirs: Any) -> str:
            found = [loss(ours.weight_, ours.bias_, c), loss(theirs.coef_.T, theirs.intercept_, c)]
            return f"loss {found[0]:.6f} and {found[1]:.6f}"

        return told

    def path_ours() -> Any:
        import torch

        from twofold.heads.logistic import Solver

        own = Scale.of(data.x)
        positions = torch.from_numpy(np.unique(data.y, return_inverse=True)[1])
        return list(Solver(own, data.x, positions, classes, 500).path(cs, tolerance))

    def path_same(ours: Any, theirs: Any) -> str:
        gaps = [
            loss(w[:-1].numpy(), w[-1].numpy(), c) - loss(m.coef_.T, m.intercept_, c)
            for w, m, c in zip(ours, theirs, cs, strict=True)
        ]
        return f"loss less theirs {min(gaps):.1e} to {max(gaps):.1e}"

    def nearest_ours() -> Any:
        return NearestNeighbours((20,)).fit(data.x, data.y).predict(data.held_x)

    def nearest_theirs() -> Any:
        unit, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (scaled, held))
        votes = KNeighborsClassifier(20, weights=lambda d: np.exp((d.min(1, keepdims=True) ** 2 - d**2) / 0.14))
        return votes.fit(unit, data.y).predict(asked)

    def nearest_same(ours: Any, theirs: Any) -> str:
        return f"equal answers {float((ours == theirs).mean()):.4f}"

    found = {
        "ridge": Line(
            f"ridge, {STRENGTHS} strengths", "RidgeClassifierCV",
            lambda: Ridge(strengths).fit(data.x, data.y, val=val), ridge_theirs, ridge_same, "20",
        ),
        **{
            f"logistic{c:g}": Line(
                f"logistic, C = {c:g}", "LogisticRegression",
                lambda c=c: Logistic((c,), tolerance).fit(data.x, data.y), lambda c=c: logistic_theirs(c),
                logistic_same(c), "3",
            )
            for c in (1e-3, 1e-2, 1e-1, 1.0)
        },
        "path": Line(
            f"logistic, {STRENGTHS} strengths", f"{STRENGTHS} x LogisticRegression",
            path_ours, lambda: [logistic_theirs(c) for c in cs], path_same, "15",
        ),
        "knn": Line("k-NN, k = 20", "KNeighborsClassifier", nearest_ours, nearest_theirs, nearest_same, "1"),
    }  # fmt: skip
    return [line for name, line in found.items() if any(name.startswith(part) for part in parts)]


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
    from twofold.heads.knn import NearestNeighbours
    from twofold.heads.linear import Linear
    from twofold.heads.logistic import Logistic
    from twofold.heads.ridge import Ridge

    small, data = synthetic(3000, classes), synthetic(rows, classes)
    made = {
        "ridge": Ridge, "logistic": Logistic, "knn": NearestNeighbours,
        "linear": lambda: Linear(epochs=1, updates=0),
    }[part]  # fmt: skip
    # Libraries load and pools grow once; that is not the table's doing.
    made().fit(small.x, small.y, val=(small.held_x, small.held_y))
    Path("/proc/self/clear_refs").write_text("5")  # forget the most so far
    before = held_now()
    made().fit(data.x, data.y, val=(data.held_x, data.held_y)).predict(data.held_x)
    return (held_at_most() - before) / data.x.nbytes


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

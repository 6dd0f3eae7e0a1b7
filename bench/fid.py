"""The Frechet distance, the kernel distance, precision and recall beside torch-fidelity and SciPy's sqrtm.

    python bench/fid.py --rows 10000 --size 2048
    python bench/fid.py --intervals

Features are made up, correlated and not negative, float32 in two files; every way reads the same ones in a process of
its own. Seconds are of the computation alone, memory is the most that the process held, less what it held before.
With --intervals: how much distances of new images differ, beside the standard errors that one pair of sets tells.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Found = dict[str, float]


def make(path: Path, rows: int, size: int, seed: int) -> None:
    """Features [rows, size] of a set; the sets differ in their mean."""
    chance = np.random.default_rng(seed)
    mix = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32) / np.sqrt(size)
    table = np.lib.format.open_memmap(path, "w+", np.float32, (rows, size))
    for start in range(0, rows, 1000):
        part = table[start : start + 1000]
        part[:] = np.clip(chance.normal(size=part.shape).astype(np.float32) @ mix + 0.1 * seed, 0, None)
    table.flush()


def ours(name: str) -> Callable[[Any, Any], Found]:
    def run(a: Any, b: Any) -> Found:
        from twofold.analyses import base

        scores = base.load(name).measure({"generated": a, "real": b})
        return {s.name: s.value for s in scores}

    return run


def plain_distance(a: Any, b: Any) -> Found:
    """The distance alone, without its interval."""
    from twofold.analyses import base, frechet

    return {"fd": frechet.distance(*(frechet.statistics(base.pieces(x)) for x in (a, b)))}


def sqrtm(a: Any, b: Any) -> Found:
    import scipy.linalg

    first, second = (np.cov(np.asarray(x, np.float64), rowvar=False) for x in (a, b))
    apart = a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)
    root = scipy.linalg.sqrtm(first @ second).real
    return {"fd": float(apart @ apart + np.trace(first + second - 2 * root))}


def fidelity_fd(a: Any, b: Any) -> Found:
    import torch
    from torch_fidelity import metric_fid

    statistics = [metric_fid.fid_features_to_statistics(torch.from_numpy(np.array(x))) for x in (a, b)]
    return {"fd": metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[metric_fid.KEY_METRIC_FID]}


def fidelity_kid(a: Any, b: Any) -> Found:
    import torch
    from torch_fidelity import metric_kid

    found = metric_kid.kid_features_to_metric(*(torch.from_numpy(np.array(x)) for x in (a, b)), verbose=False)
    return {"kid": found[metric_kid.KEY_METRIC_KID_MEAN]}


def fidelity_pr(a: Any, b: Any) -> Found:
    import torch
    from torch_fidelity import metric_prc

    found = metric_prc.prc_features_to_metric(
        *(torch.from_numpy(np.array(x)) for x in (a, b)), save_cpu_ram=True, verbose=False
    )
    return {name: found[name] for name in ("precision", "recall")}


WAYS: dict[str, Callable[[Any, Any], Found]] = {
    "twofold: distance": plain_distance, "twofold: distance and interval": ours("frechet"),
    "torch-fidelity: distance": fidelity_fd, "SciPy's sqrtm": sqrtm,
    "twofold: kid": ours("kid"), "torch-fidelity: kid, 100 subsets": fidelity_kid,
    "twofold: precision, recall": ours("precision_recall"), "torch-fidelity: precision, recall": fidelity_pr,
}  # fmt: skip


def held() -> int:
    """The most bytes of this very process; getrusage would count what its parent held when it was started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(way: str, folder: Path) -> None:
    """In a process of its own: one JSON line."""
    a, b = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in "ab")
    WAYS[way](a[:50, :20], b[:50, :20]) if "kid" not in way else None  # imports
    before, start = held(), time.perf_counter()
    found = WAYS[way](a, b)
    sys.stdout.write(json.dumps({"found": found, "s": time.perf_counter() - start, "bytes": held() - before}) + "\n")


# Images, features, and how far the means and deviations of the two sets are apart.
CASES = {
    "2,000 x 20, alike": (2000, 20, 0.0, 1.0), "2,000 x 20, apart": (2000, 20, 0.0, 1.3),
    "240 x 60, alike": (240, 60, 0.0, 1.0), "240 x 60, apart": (240, 60, 0.3, 1.0),
    "50 x 100, alike": (50, 100, 0.0, 1.0), "50 x 100, apart": (50, 100, 0.2, 1.5),
}  # fmt: skip


def intervals(draws: int = 100) -> None:
    """Of features that are normal and cut at zero, as many draws of both sets."""
    from twofold.analyses import base

    print("| | fd | its deviation | told | kid | its deviation | told |\n|---|---|---|---|---|---|---|")
    for case, (rows, size, mean, wide) in CASES.items():
        chance, cells = np.random.default_rng(0), []
        drawn = [
            {
                "generated": chance.normal(mean, wide, (rows, size)).clip(0),
                "real": chance.normal(size=(rows, size)).clip(0),
            }
            for _ in range(draws)
        ]
        for name in ("frechet", "kid"):
            found = [next(base.load(name).measure(tables)) for tables in drawn[: draws if rows < 1000 else draws // 4]]
            values = [score.value for score in found]
            cells += [np.mean(values), np.std(values), np.mean([score.about["standard_error"] for score in found])]
        print(f"| {case} | {' | '.join(f'{cell:.3g}' for cell in cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--ways", default="all", help="some, with commas between, by a part of their name")
    parser.add_argument("--intervals", action="store_true", help="compare standard errors instead")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.intervals:
        intervals()
        return
    if asked.child:
        measure(asked.child[0], Path(asked.child[1]))
        return
    parts = [""] if asked.ways == "all" else asked.ways.split(",")
    with tempfile.TemporaryDirectory() as folder:
        for k, name in enumerate("ab"):
            make(Path(folder) / f"{name}.npy", asked.rows, asked.size, k)
        print(f"{asked.rows:,} x {asked.size:,} against as many\n\n| | value | s | memory, MB |\n|---|---|---|---|")
        for way in (w for w in WAYS if any(part in w for part in parts)):
            told = subprocess.run(
                [sys.executable, __file__, "--child", way, folder], capture_output=True, check=True, text=True
            )
            one = json.loads(told.stdout.splitlines()[-1])
            value = ", ".join(f"{v:.7g}" for v in one["found"].values())
            print(f"| {way} | {value} | {one['s']:.1f} | {one['bytes'] / 1e6:,.0f} |", flush=True)


if __name__ == "__main__":
    main()

"""How often samples of a class-conditional digits network show the class that was asked for.

    twofold sample --model run:NET --label all --num 1000 --sampler dpm++ --steps 20 --out SAMPLES
    python bench/classes.py SAMPLES

The judge is a support vector machine on the pixels of digits' training images; its accuracy on val stands beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.svm import SVC

import twofold
from twofold.results import bootstrap_interval


def pixels(split: str) -> tuple[Any, Any]:
    """Grey values [N, 64] and labels of a split of digits."""
    rows = twofold.load_dataset("digits").build(split)
    return np.stack([image[0].numpy().ravel() for image in rows.read(range(len(rows)))]), rows.labels


def samples(folder: Path) -> tuple[Any, Any]:
    """Grey values [N, 64] of a run of `sample`, and the classes asked for: one folder of images each, in order."""
    folders = sorted(p for p in (folder / "images").iterdir() if p.is_dir())
    found = [(path, k) for k, one in enumerate(folders) for path in sorted(one.glob("*.png"))]
    return np.stack([np.asarray(Image.open(path)).ravel() for path, _ in found]), np.array([k for _, k in found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, nargs="+")
    asked = parser.parse_args()
    judge = SVC(C=10.0).fit(*pixels("train"))
    print("| images | n | of the class asked for, % |\n|---|---|---|")
    for name, (x, y) in [("digits, val", pixels("val")), *((str(p), samples(p)) for p in asked.samples)]:
        right = judge.predict(x) == y
        low, high = bootstrap_interval(right)
        print(f"| {name} | {len(y)} | {100 * right.mean():.1f} ({100 * low:.1f} to {100 * high:.1f}) |", flush=True)


if __name__ == "__main__":
    main()

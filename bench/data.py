"""How fast images are decoded and brought to 256 x 256, against a bare Pillow loop, on one core.

    python bench/data.py FOLDER [FOLDER ...] [--rounds 5]

Each folder holds images of one kind (224 px JPEGs, photographs of original size). In every round each contender reads
all of them once, in turn, so that a noisy machine shows in the spread and not in the ratios; the first round warms
the disk's cache and does not count. All run on one thread. `bare` opens, decodes, converts, resizes as P1's authors do
(BOX halving, then bicubic) and crops; nothing else. `ours` is what `extract` does: rows.read, then preprocess.
`ours, decode` and `bare, decode` leave the resizing out. `draft` lets the JPEG decoder halve. The last column says
how far the pixels are off those of `bare`: the mean and the largest of the absolute differences, of 255.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image

from twofold import results
from twofold.backbones import _memory
from twofold.backbones._resizing import square
from twofold.datasets import _decode
from twofold.datasets import base as datasets
from twofold.datasets._files import images_below

SIDE = 256
Pixels = NDArray[np.uint8]


def bare(path: Path) -> Pixels:
    """uint8 [256, 256, 3]."""
    return fitted(Image.open(path).convert("RGB"))


def draft(path: Path) -> Pixels:
    """As `bare`, halved by the JPEG decoder where that leaves enough pixels."""
    picture = Image.open(path)
    factor = 1
    while min(picture.size) // (2 * factor) >= SIDE:
        factor *= 2
    picture.draft("RGB", (picture.width // factor, picture.height // factor))
    return fitted(picture.convert("RGB"))


def fitted(picture: Image.Image) -> Pixels:
    """Halve, scale, crop."""
    while min(picture.size) >= 2 * SIDE:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = SIDE / min(picture.size)
    size = (max(SIDE, round(picture.width * scale)), max(SIDE, round(picture.height * scale)))
    pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
    top, left = (pixels.shape[0] - SIDE) // 2, (pixels.shape[1] - SIDE) // 2
    return pixels[top : top + SIDE, left : left + SIDE]


def decoded(path: Path) -> Pixels:
    """uint8 [H, W, 3]."""
    return np.asarray(Image.open(path).convert("RGB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    _memory.keep()  # as any command on a CPU does; it speeds all readers up
    rows: list[tuple[str, ...]] = [("folder", "reader", "images/s (lowest to highest)", "of bare", "off by")]
    for folder in given.folders:
        rows += measure(folder, given.rounds)
    print(results.table(rows))


def measure(folder: Path, rounds: int) -> list[tuple[str, ...]]:
    """The table's lines about one folder."""
    dataset = datasets.load(f"folder:{folder}")
    parts = [dataset.build(split) for split in datasets.SPLITS]
    paths = [folder / name for name in images_below(folder)]

    def ours(finish: Callable[[list[torch.Tensor]], object]) -> None:
        for rows in parts:
            for start in range(0, len(rows), 16):
                finish(list(rows.read(range(start, min(start + 16, len(rows))))))

    readers: dict[str, tuple[Callable[[], object], str]] = {
        "bare": (lambda: [bare(path) for path in paths], ""),
        "ours": (lambda: ours(lambda images: square(images, SIDE)), "bare"),
        "draft": (lambda: [draft(path) for path in paths], "bare"),
        "bare, decode": (lambda: [decoded(path) for path in paths], ""),
        "ours, decode": (lambda: ours(lambda images: images), "bare, decode"),
    }
    seconds = timed({name: run for name, (run, _) in readers.items()}, rounds)
    off = {"ours": distance(lambda path: fit(path).numpy(), paths), "draft": distance(draft, paths)}
    lines: list[tuple[str, ...]] = []
    for name, (_, against) in readers.items():
        rates = sorted(len(paths) / s for s in seconds[name])
        ratios = [b / a for a, b in zip(seconds[name], seconds[against or name], strict=True)]
        share = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if against else ""
        told = f"{statistics.median(rates):.0f} ({rates[0]:.0f} to {rates[-1]:.0f})"
        lines.append((folder.name, name, told, share, off.get(name, "")))
    return lines


def fit(path: Path) -> torch.Tensor:
    """uint8 [256, 256, 3] by our code."""
    return square([_decode.decode(path)], SIDE)[0].permute(1, 2, 0)


def distance(reader: Callable[[Path], Pixels], paths: list[Path]) -> str:
    """Mean and largest difference of a reader from `bare`; without turned photographs, which `bare` leaves lying."""
    upright = [path for path in paths if Image.open(path).getexif().get(ExifTags.Base.Orientation, 1) == 1]
    apart = [np.abs(reader(path).astype(int) - bare(path)) for path in upright]
    return f"{np.mean([a.mean() for a in apart]):.4f}, {max(int(a.max()) for a in apart)}"


def timed(readers: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each reader in each round; they are of one thread, so other load does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(rounds + 1):
        for name, run in readers.items():
            started = time.process_time()
            run()
            if number:
                seconds[name].append(time.process_time() - started)
    return seconds


if __name__ == "__main__":
    main()

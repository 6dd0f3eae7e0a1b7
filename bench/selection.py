"""What choosing a tap costs: a whole `twofold select` beside nothing but its forward passes, in one run.

    python bench/selection.py [--images 10000] [--blocks 20] [--steps 6] [--pools 1,2,4] [--widths 64,128,128,128]

A U-Net for 32 pixels with random weights (time does not depend on them) and images of noise in a folder of PNGs, in ten
classes. `select` decodes them, reads all blocks and pools in one pass a noise step, writes the store, solves one ridge
path a cell and draws the map. Beside it stand the passes alone: the same network, batch and number format, up to the
deepest block asked for, on images that lie in memory (on a fifth of them, before and after).
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image

from twofold import results
from twofold.backbones import base as backbones
from twofold.backbones.base import DiffusionBackbone
from twofold.steps import select

SIDE, CLASSES, BATCH = 32, 10, 64
LADDER = (10.0, 30.0, 60.0, 100.0, 150.0, 250.0, 400.0, 600.0)


def network(folder: Path, widths: tuple[int, ...]) -> str:
    """A pipeline folder of a U-Net with random weights."""
    attended = [SIDE // 2**k == 16 for k in range(len(widths))]
    unet = UNet2DModel(
        sample_size=SIDE, block_out_channels=widths, layers_per_block=2,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attended),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)),
    )  # fmt: skip
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)
    return f"diffusers:{folder}"


def images(folder: Path, count: int) -> str:
    """PNGs of noise, a ninth of them in val."""
    chance = np.random.default_rng(0)
    for k in range(count):
        split = "val" if k % 9 == 8 else "train"
        place = folder / split / f"class{k // 9 % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(place / f"{k:06d}.png")
    for label in range(CLASSES):
        place = folder / "test" / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(place / "0.png")
    return f"folder:{folder}"


def passes_alone(model: str, blocks: int, steps: tuple[float, ...], count: int) -> float:
    """Seconds of as many truncated forward passes, on images in memory."""
    backbone = backbones.load(model, device="cpu")
    assert isinstance(backbone, DiffusionBackbone)
    x = torch.randn(BATCH, *backbone.sample_shape)
    noise, wanted = torch.randn_like(x), list(range(1, blocks + 1))
    backbone.features(x, steps[0], wanted, noise)
    begun = time.perf_counter()
    for start in range(0, count, BATCH):
        part = slice(0, min(BATCH, count - start))
        for t in steps:
            backbone.features(x[part], t, wanted, noise[part])
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--pools", default="1,2,4")
    parser.add_argument("--widths", default="64,128,128,128")
    parser.add_argument("--share", type=float, default=0.2, help="of the images that the passes alone are timed on")
    given = parser.parse_args()
    part = max(BATCH, int(given.share * given.images))
    steps, widths = LADDER[: given.steps], tuple(map(int, given.widths.split(",")))
    with tempfile.TemporaryDirectory() as where:
        model, data = network(Path(where) / "net", widths), images(Path(where) / "data", given.images)
        blocks = tuple(map(str, range(1, given.blocks + 1)))
        before = passes_alone(model, given.blocks, steps, part) * given.images / part
        begun = time.perf_counter()
        facts = select.run(
            select.Config(model, data, Path(where) / "run", blocks=blocks, t=steps, pool=given.pools, batch=BATCH)
        ).facts
        taken = time.perf_counter() - begun
        after = passes_alone(model, given.blocks, steps, part) * given.images / part
    alone = (before + after) / 2
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(
        results.table(
            [
                ("", "seconds", "over the passes alone"),
                ("passes alone, before and after", f"{before:.1f}, {after:.1f}", "1"),
                ("twofold select", f"{taken:.1f}", f"{taken / alone:.2f}"),
            ]
        )
    )
    print(f"{facts['cells']} cells, {facts['passes']:,} forward passes of {given.images:,} images x {len(steps)} steps")


if __name__ == "__main__":
    main()

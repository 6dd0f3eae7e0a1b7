"""Memory: what loading ADM-256 takes, and whether extraction grows with the number of images.

    python bench/memory.py [--precision bf16] [--block 24] [--batch 8]

Makes a file of ADM-256's shapes (2.2 GB of random float32 weights under guided-diffusion's names) in a temporary
folder. Every line is a process of its own and gives the most memory that the system ever saw it hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

# The most memory of this very process; getrusage would count what its parent held when it was started.
HELD = """
def held():
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
"""
LOAD = """
import sys
import torch
from diffusers import DDPMScheduler, UNet2DModel
import twofold
from twofold.backbones import adm, unet
before = held()
backbone = twofold.load_backbone(sys.argv[1], device="cpu", precision=sys.argv[2])
print(before, held())
"""
EXTRACT = """
import sys
from twofold import cli
assert cli.run([*sys.argv[1:], "--quiet"]) == 0
print(0, held())
"""
GIGA = 1e9


def peak(code: str, *arguments: str) -> tuple[float, float]:
    """Memory before and at most, in gigabytes."""
    done = subprocess.run([sys.executable, "-c", HELD + code, *arguments], capture_output=True, text=True, check=True)
    before, most = (int(n) / GIGA for n in done.stdout.split()[-2:])
    return before, most


def checkpoint(folder: Path) -> tuple[Path, float]:
    """ADM-256 with random weights; its path and the size of its weights in gigabytes."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import torch

    from adm_reference import Flags, random_state

    flags = Flags(256, 256, 2, (1, 1, 2, 2, 4, 4), (3, 4, 5), num_head_channels=64)
    state = random_state(flags)
    path = folder / "256x256_diffusion_uncond.pt"
    torch.save(state, path)
    return path, sum(w.numel() * w.element_size() for w in state.values()) / GIGA


def pictures(folder: Path, count: int) -> Path:
    """So many images of 256 pixels to train on, and the fewest to call it a data set."""
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(0)
    for split, images in (("train", count), ("val", 1), ("test", 1)):
        (folder / split / "a").mkdir(parents=True)
        for k in range(images):
            pixels = chance.integers(0, 256, (256, 256, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / "a" / f"{k:04d}.png")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--block", default="24")
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        path, size = checkpoint(folder)
        print(f"weights in the file: {size:.2f} GB", flush=True)
        for precision in ("fp32", "bf16"):
            before, most = peak(LOAD, f"adm:{path}", precision)
            ratio = (most - before) / size
            print(
                f"loading in {precision}: {most - before:.2f} GB at most, {ratio:.2f} of the file's weights", flush=True
            )
        for batches in (1, 2):
            count = batches * given.batch
            data = pictures(folder / f"images{count}", count)
            where = ["--model", f"adm:{path}", "--data", f"folder:{data}", "--split", "train", "--t", "90"]
            how = ["--block" + "s", given.block, "--pool", "2", "--batch", str(given.batch)]
            number_format = ["--precision", given.precision, "--device", "cpu"]
            _, most = peak(EXTRACT, "extract", *where, *how, *number_format, "--out", str(folder / f"store{count}"))
            told = {"images": count, "block": given.block, "batch": given.batch, "precision": given.precision}
            print(f"extracting {json.dumps(told)}: {most:.2f} GB at most", flush=True)


if __name__ == "__main__":
    main()

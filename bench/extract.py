"""Reading speed: how long features take, how much of the machine that uses, and what stands around the forward pass.

    python bench/extract.py [--networks adm,cifar] [--precisions fp32,bf16] [--rounds 3]

Networks have random weights: the ADM-256 architecture of P1, and a U-Net of CIFAR size. In every round each contender
runs once, and so does a plain matrix product in the same number format; the table gives medians, so that a
noisy machine shows in the spread and not in the ratios. `full` is the whole network, read our way; `full, plain` is the
network of diffusers as it comes (fp32, channels first, the C library's memory as it is), as the papers' code runs it.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from PIL import Image

from twofold import results
from twofold.backbones import _adm, _memory, _unet
from twofold.backbones import base as backbones
from twofold.backbones._network import DiffusionNetwork
from twofold.datasets import base as datasets
from twofold.records import Cell, Tap
from twofold.steps import _fill

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
STEP = 90.0
MATRIX = 2048


def adm_config() -> dict[str, Any]:
    """ADM-256, unconditional (PAPER.md 1.1)."""
    shape = _adm.Shape((256, 256, 512, 512, 1024, 1024), 2, (False,) * 3 + (True,) * 3, 256, 3, 6, 0, True, True)
    return _adm.config(shape, _adm.Heads(64, None, False), {"image_size": 256})


def cifar_config() -> dict[str, Any]:
    """The network of Ho et al. 2020 for CIFAR-10: 35.7 M parameters."""
    down, up = ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"), "UpBlock2D"
    return {
        "sample_size": 32, "block_out_channels": (128, 256, 256, 256), "layers_per_block": 2, "down_block_types": down,
        "up_block_types": (up, up, "AttnUpBlock2D", up), "attention_head_dim": 256,
    }  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], dict[str, Any]], tuple[int, ...], int]] = {
    "adm": (adm_config, (15, 19, 24, 30), 2),
    "cifar": (cifar_config, (6, 12, 14, 18), 64),
}


@dataclass
class Contender:
    """One line of the table to be."""

    network: str
    what: str
    precision: str
    images: int
    operations: int
    work: Callable[[], object]
    kept: bool = True
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


def load(config: dict[str, Any], precision: str, compiled: bool) -> DiffusionNetwork:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    unet = _unet.make(config, DTYPES[precision], weights=True)
    unet = unet.to(device=device, memory_format=torch.channels_last)
    placement = backbones.Placement(device, DTYPES[precision], compile=compiled)
    return _unet.backbone(unet, DDPMScheduler(), placement, name="random")


def remember(kept: bool) -> None:
    """Keep freed memory as `backbones.load` does on a CPU, or give it back as the C library does by itself."""
    if not _memory.keep():
        return
    library, megabyte = ctypes.CDLL(None), 1 << 20
    values = _memory.VALUES if kept else dict.fromkeys(_memory.VALUES, 32 * megabyte) | {_memory.TOP_PAD: 0}
    for name, value in values.items():
        library.mallopt(name, value)
    if not kept:
        library.malloc_trim(0)


def plain(name: str, config: dict[str, Any], images: int, like: Contender) -> Contender:
    """The whole network of diffusers, called as its documentation does."""
    unet = _unet.make(config, torch.float32, weights=True).eval()
    unet = unet.to("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.randn(images, unet.config.in_channels, *[unet.config.sample_size] * 2, device=unet.device)

    def work() -> None:
        with torch.inference_mode():
            unet(x, STEP)

    return Contender(name, "full, plain", "fp32", images, like.operations, work, kept=False)


def timed(work: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def matrix_rate(precision: str) -> float:
    """Operations a second of a plain matrix product."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = MATRIX * (4 if device == "cuda" else 1)
    left, right = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
    torch.mm(left, right)
    return max(2 * side**3 / timed(lambda: torch.mm(left, right)) for _ in range(3))


def contenders(name: str, backbone: DiffusionNetwork, precision: str, images: int) -> list[Contender]:
    x = torch.randn(images, *backbone.sample_shape, device=backbone.placement.device)
    found = []
    whole = backbone.cost(len(backbone.blocks)).operations
    for block in NETWORKS[name][1]:
        operations, work = backbone.cost(block).operations, partial(backbone.features, x, STEP, [block])
        found.append(Contender(name, f"b = {block}", precision, images, operations, work))
    full = Contender(name, "full", precision, images, whole, lambda: backbone.denoise(x, STEP))
    return [full, *found]


def measure(all_: list[Contender], rounds: int) -> None:
    for c in all_:
        remember(c.kept)
        c.work()
    for k in range(rounds):
        for c in all_ if k % 2 else all_[::-1]:
            remember(c.kept)
            c.rates.append(matrix_rate(c.precision))
            c.seconds.append(timed(c.work) / c.images)
            c.rates[-1] = (c.rates[-1] + matrix_rate(c.precision)) / 2


def table(all_: list[Contender]) -> str:
    rows = [
        (
            "network",
            "read",
            "format",
            "s/image (lowest to highest)",
            "GFLOP/image",
            "of full",
            "times plain",
            "of matrix product",
        )
    ]
    for c in all_:
        seconds = statistics.median(c.seconds)
        # Without fp32 in the run the plain network stands alone.
        full = next((f for f in all_ if (f.precision, f.what) == (c.precision, "full")), c)
        of_full, of_plain = (
            statistics.median(a / b for a, b in zip(c.seconds, other.seconds, strict=True)) for other in (full, all_[0])
        )
        shares = [c.operations / s / r for s, r in zip(c.seconds, c.rates, strict=True)]
        rows.append(
            (c.network, c.what, c.precision, f"{seconds:.4g} ({min(c.seconds):.4g} to {max(c.seconds):.4g})",
             f"{c.operations / 1e9:.1f}", f"{of_full:.3f}", f"{1 / of_plain:.2f}",
             f"{statistics.median(shares):.2f}")
        )  # fmt: skip
    return results.table(rows)


def end_to_end(name: str, backbone: DiffusionNetwork, images: int, rounds: int) -> str:
    """`twofold extract` after loading (decode, prepare, noise, forward, pool, write) beside the bare forward pass."""
    block, batch = NETWORKS[name][1][2], NETWORKS[name][2]
    ratios = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _pictures(folder / "images", images, backbone.image_size)
        dataset = datasets.load(f"folder:{folder / 'images'}")
        rows = dataset.build("train")
        prepared = [
            backbone.preprocess(rows.read(range(s, min(s + batch, len(rows))))) for s in range(0, len(rows), batch)
        ]
        reading = _fill.Reading(batch=batch)
        for k in range(rounds):

            def bare() -> None:
                for x in prepared:
                    backbone.features(x, STEP, [block])

            def whole(k: int = k) -> None:
                store = _fill.open_store(folder / f"store{k}", backbone, dataset, reading)
                _fill.fill(store, backbone, dataset, ("train",), [Cell(Tap(block, STEP), 2)], reading)

            first, second = (bare, whole) if k % 2 else (whole, bare)
            times = {work.__name__: timed(work) for work in (first, second)}
            ratios.append(times["whole"] / times["bare"])
    shown = ", ".join(f"{r:.3f}" for r in ratios)
    return f"{name}, b = {block}: end to end takes {statistics.median(ratios):.3f} of the bare forward pass ({shown})"


def _pictures(folder: Path, count: int, side: int) -> None:
    chance = np.random.default_rng(0)
    (folder / "train" / "a").mkdir(parents=True)
    for k in range(count):
        coarse = chance.integers(0, 256, (side // 8 + 5, side // 8 + 9, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side + 72, side + 40), Image.Resampling.BICUBIC)
        for split in ("train", "val", "test"):
            (folder / split / "a").mkdir(parents=True, exist_ok=True)
        picture.save(folder / "train" / "a" / f"{k}.jpg", quality=90)
    for split in ("val", "test"):
        picture.save(folder / split / "a" / "0.jpg")


def hardware() -> str:
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = [n for n in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if told.get(n)]
    return f"{device} ({' '.join(fast)}), torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="adm,cifar")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=4, help="batches of the end-to-end comparison")
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    print(hardware(), flush=True)
    remember(kept=True)
    for name in given.networks.split(","):
        config, _, images = NETWORKS[name]
        found: list[Contender] = []
        told: list[str] = []
        for precision in given.precisions.split(","):
            backbone = load(config(), precision, given.compile)
            found += contenders(name, backbone, precision, images)
            if len(told) == 0:
                found.insert(0, plain(name, config(), images, found[0]))
            told.append(f"{precision}: {end_to_end(name, backbone, given.images * images, given.rounds)}")
        measure(found, given.rounds)
        print("", table(found), "", *told, sep="\n", flush=True)


if __name__ == "__main__":
    main()

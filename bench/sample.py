"""Sampling speed of `twofold sample` beside diffusers' own pipeline, interleaved in one run.

    python bench/sample.py [MODEL] [--steps 20] [--batch 64] [--rounds 7] [--precision fp32] [--device cpu]

Both generate a batch of images with the same network, scheduler (DDIM, "trailing" steps, clipped estimates), number of
steps, batch and precision; ours from noise that belongs to each image, theirs from one generator. Both end with bytes.
Each round times both, in alternating order; the ratio is of the medians. Without MODEL, an untrained network of the
size for 32 pixels is made.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

from twofold.steps.sample import Config, Drawing

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def untrained(folder: str) -> str:
    """A DDPM pipeline of the usual shape for 32 pixels, a quarter as wide as for CIFAR-10."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=32, block_out_channels=(32, 64, 64, 64), layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"), norm_num_groups=32,
    )  # fmt: skip
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)
    return folder


def theirs(folder: str, config: Config, device: str) -> Callable[[], Any]:
    pipeline = DDIMPipeline.from_pretrained(folder, dtype=DTYPES[config.precision]).to(device)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.set_progress_bar_config(disable=True)
    chance = torch.Generator().manual_seed(0)

    def generate() -> Any:
        images = pipeline(
            config.batch, num_inference_steps=config.steps, generator=chance, output_type="np",
            use_clipped_model_output=True,
        ).images  # fmt: skip
        return (images * 255).round().astype(np.uint8)

    return generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a diffusers folder with a U-Net in pixel space")
    for name, default in {"steps": 20, "batch": 64, "rounds": 7}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.model or untrained(made)
        chosen = {"steps": given.steps, "batch": given.batch, "precision": given.precision}
        config = Config(f"diffusers:{folder}", Path("unused"), **chosen)
        drawing = Drawing.of(config, given.device)
        contenders = {
            "twofold": lambda: drawing.images(range(given.batch)),
            "DDIMPipeline": theirs(folder, config, given.device),
        }
        compare(contenders, given.batch, given.rounds)


def compare(contenders: dict[str, Callable[[], Any]], images: int, rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for generate in contenders.values():
        generate()
    for k in range(rounds):
        for name in sorted(contenders, reverse=bool(k % 2)):
            started = time.perf_counter()
            contenders[name]()
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{'':12} {'images/s':>9}  (lowest to highest of {rounds} rounds)")
    for name, values in times.items():
        print(f"{name:12} {images / medians[name]:9.2f}  ({images / max(values):.2f} to {images / min(values):.2f})")
    print(f"twofold reaches {medians['DDIMPipeline'] / medians['twofold']:.3f} of the pipeline")


if __name__ == "__main__":
    main()

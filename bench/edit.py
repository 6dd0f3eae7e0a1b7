"""Quality of `twofold edit` beside trivial baselines, in PSNR and SSIM on digits' test images.

    python bench/edit.py RUN [--images 359] [--device cpu]

Inputs go through bytes, as PNG files do. Settings (samples in the mean, noise told to denoise, windows of filters)
are chosen by PSNR on val, then test is opened once. RUN is a run on digits.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import median_filter
from scipy.signal import wiener
from torch.nn.functional import avg_pool2d, interpolate
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

import twofold
from twofold.steps import _images
from twofold.steps.edit import Config, Editor, complete

Images = Any  # uint8 [N, 8, 8]
Method = Callable[[Images], Images]


def as_bytes(x: Any) -> Images:
    return np.asarray(x).round().clip(0, 255).astype(np.uint8)


def noisy(images: Images, level: float) -> Images:
    return as_bytes(images + level * np.random.default_rng(0).standard_normal(images.shape))


def reduced(images: Images, factor: int) -> Images:
    return as_bytes(avg_pool2d(torch.from_numpy(images).float()[:, None], factor)[:, 0])


def bicubic(images: Images, factor: int) -> Images:
    x = torch.from_numpy(images).float()[:, None]
    return as_bytes(interpolate(x, scale_factor=factor, mode="bicubic", align_corners=False)[:, 0])


def hole() -> Any:
    """The middle 4 x 4 pixels."""
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    return mask


def mean_fill(images: Images) -> Images:
    """The mean of each image's known pixels."""
    return np.stack([np.where(hole(), as_bytes(one[~hole()].mean()), one) for one in images])


def each(filtered: Callable[[Any], Any]) -> Method:
    return lambda images: np.stack([as_bytes(np.nan_to_num(filtered(one.astype(float)))) for one in images])


def ours(backbone: Any, task: str, **more: Any) -> Method:
    def method(images: Images) -> Images:
        with tempfile.TemporaryDirectory() as folder:
            if task == "inpaint":
                Image.fromarray(255 * hole().astype(np.uint8)).save(f"{folder}/mask.png")
                more["mask"] = Path(folder) / "mask.png"
            config = complete(Config(task, "pixels", (Path("x"),), Path("y.png"), **more))
            pictures = list(torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1).contiguous())
            return Editor(config, backbone).edited(pictures, [_images.own_number(p) for p in pictures])[:, 0]

    return method


def quality(made: Images, true: Images) -> tuple[float, float]:
    """Mean PSNR (dB) and SSIM (a window of 7 pixels) over images."""
    a, b = (torch.from_numpy(x).float()[:, None] for x in (made, true))
    psnr = [peak_signal_noise_ratio(x, y, data_range=255.0).item() for x, y in zip(a, b, strict=True)]
    ssim: Any = structural_similarity_index_measure(a, b, gaussian_kernel=False, kernel_size=7, data_range=255.0)
    return float(np.minimum(psnr, 100).mean()), float(ssim)


def tasks(backbone: Any) -> Mapping[str, tuple[Method, Mapping[str, Mapping[str, Method]]]]:
    """Name of a task -> what spoils images, and for each row of the table the methods of which val chooses one."""
    found: dict[str, tuple[Method, dict[str, dict[str, Method]]]] = {}
    for level in (25, 50):
        found[f"denoise, {level} grey levels"] = (
            partial(noisy, level=level),
            {
                "as it is": {"": lambda images: images},
                "median": {f"{n} x {n}": each(partial(median_filter, size=n)) for n in (2, 3)},
                "Wiener": {f"{n} x {n}": each(partial(wiener, mysize=n, noise=level**2)) for n in (2, 3, 5)},
                "edit, level told": {
                    f"{s:g} x level": ours(backbone, "denoise", noise_level=level * s) for s in (0.6, 0.8, 1.0)
                },
                "edit, level estimated": {"": ours(backbone, "denoise")},
            },
        )
    samples = {f"mean of {n}": {"average": n, "steps": 10} for n in (1, 8)}
    found["inpaint, middle 4 x 4"] = (
        lambda images: np.where(hole(), 0, images).astype(np.uint8),
        {
            "mean fill": {"": mean_fill},
            "edit": {name: ours(backbone, "inpaint", **more) for name, more in samples.items()},
            "edit, one sample": {"": ours(backbone, "inpaint", average=1, steps=10)},
        },
    )
    for factor in (2, 4):
        found[f"superres x{factor}"] = (
            partial(reduced, factor=factor),
            {
                "bicubic": {"": partial(bicubic, factor=factor)},
                "edit": {name: ours(backbone, "superres", factor=factor, **more) for name, more in samples.items()},
                "edit, one sample": {"": ours(backbone, "superres", factor=factor, average=1, steps=10)},
            },
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=359, help="test images; a third as many of val choose")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)  # Wiener divides by the variance of black corners
    backbone = twofold.load_backbone(asked.run, device=asked.device)
    data = twofold.load_dataset("digits")
    val, test = (
        np.stack([image[0].numpy() for image in data.build(split).read(range(n))])
        for split, n in (("val", asked.images // 3), ("test", asked.images))
    )
    print(f"{asked.run}: {len(test)} test images, settings chosen on {len(val)} of val\n")
    print("| task | method | chosen on val | PSNR, dB | SSIM |\n|---|---|---|---|---|")
    for task, (spoil, rows) in tasks(backbone).items():
        for row, methods in rows.items():
            best = max(methods, key=lambda name: quality(methods[name](spoil(val)), val)[0]) if len(methods) > 1 else ""
            psnr, ssim = quality(methods[best](spoil(test)), test)
            print(f"| {task} | {row} | {best} | {psnr:.2f} | {ssim:.3f} |", flush=True)


if __name__ == "__main__":
    main()

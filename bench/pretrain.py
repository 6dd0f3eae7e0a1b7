"""Training speed of `twofold pretrain` beside two other loops over the same network, interleaved in one run.

    python bench/pretrain.py [ROUNDS]

All train the digits network at batch 64 in float32. The bare loop draws noise with torch, does forward, backward,
clipping and AdamW, and nothing else. The example loop does what diffusers' example for unconditional training does:
images through transforms and a DataLoader, accelerate, a schedule of the rate, an EMAModel, the loss read every update.
Each round times all, in alternating order; ratios are of the medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from torchvision.transforms import v2 as transforms

from twofold.datasets import base as datasets
from twofold.steps._trainer import Recipe, Trainer
from twofold.steps.pretrain import Config

UPDATES = 40
BATCH = 64


def bare_loop(trainer: Trainer) -> Callable[[], object]:
    """One update as a script would write it, on a network of the same shape."""
    pipeline = trainer.pipeline()
    unet, schedule = pipeline.unet.train(), pipeline.scheduler
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True)
    images = torch.randn(1024, 1, 8, 8)

    def update() -> None:
        x = images[torch.randint(len(images), (BATCH,))]
        steps = torch.randint(0, 1000, (BATCH,))
        noise = torch.randn_like(x)
        loss = (unet(schedule.add_noise(x, noise, steps), steps).sample - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()

    return update


class Pictures(torch.utils.data.Dataset[torch.Tensor]):
    """Digits as a script has them: pictures that are transformed when they are asked for."""

    def __init__(self) -> None:
        rows = datasets.load("digits").build("train")
        self.pictures = [Image.fromarray(image[0].numpy()) for image in rows.read(range(len(rows)))]
        self.transform = transforms.Compose(
            [
                transforms.Resize(8),
                transforms.CenterCrop(8),
                transforms.ToImage(),
                transforms.ToDtype(torch.float32, scale=True),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> torch.Tensor:
        image: torch.Tensor = self.transform(self.pictures[index])
        return image


def example_loop(trainer: Trainer) -> Callable[[], object]:
    """One update as diffusers' example does it."""
    pipeline = trainer.pipeline()
    unet, schedule = pipeline.unet.train(), pipeline.scheduler
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
    loader = torch.utils.data.DataLoader(Pictures(), batch_size=BATCH, shuffle=True, drop_last=True)
    rates = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=10**6)
    average = EMAModel(unet.parameters(), decay=0.9999, use_ema_warmup=True)
    unet, optimizer, loader, rates = accelerator.prepare(unet, optimizer, loader, rates)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            yield from loader

    images = batches()

    def update() -> None:
        x = next(images)
        noise = torch.randn_like(x)
        steps = torch.randint(0, 1000, (len(x),))
        with accelerator.accumulate(unet):
            predicted = unet(schedule.add_noise(x, noise, steps), steps).sample
            loss = torch.nn.functional.mse_loss(predicted.float(), noise.float())
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            average.step(unet.parameters())
        loss.detach().item()

    return update


def seconds(update: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(UPDATES):
        update()
    return time.perf_counter() - started


def main(rounds: int) -> None:
    config = Config("digits", Path("unused"), images=10**9)
    ours, other, third = (Trainer(Recipe.of(config), datasets.load("digits"), 8) for _ in range(3))
    contenders = {"twofold": ours.update, "bare loop": bare_loop(other), "example loop": example_loop(third)}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for update in contenders.values():
        seconds(update)
    for k in range(rounds):
        for name in sorted(contenders, reverse=bool(k % 2)):
            times[name].append(seconds(contenders[name]))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{'':12} {'images/s':>9}  (lowest to highest of {rounds} rounds)")
    for name, values in times.items():
        low, high = (UPDATES * BATCH / v for v in (max(values), min(values)))
        print(f"{name:12} {UPDATES * BATCH / medians[name]:9.0f}  ({low:.0f} to {high:.0f})")
    for name in ("bare loop", "example loop"):
        print(f"twofold has {medians[name] / medians['twofold']:.3f} of the speed of the {name}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)

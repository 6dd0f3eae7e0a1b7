"""Training speed of `twofold pretrain` beside a bare loop over the same network, interleaved in one run.

    python bench/pretrain.py [ROUNDS]

Both train the digits network at batch 64 in float32. The bare loop draws noise with torch, does forward, backward,
clipping and AdamW, and nothing else. Each round times both, in alternating order; the ratio is of the medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

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


def seconds(update: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(UPDATES):
        update()
    return time.perf_counter() - started


def main(rounds: int) -> None:
    config = Config("digits", Path("unused"), images=10**9)
    ours, other = (Trainer(Recipe.of(config), datasets.load("digits"), 8) for _ in range(2))
    contenders = {"twofold": ours.update, "bare loop": bare_loop(other)}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for update in contenders.values():
        seconds(update)
    for k in range(rounds):
        for name in sorted(contenders, reverse=bool(k % 2)):
            times[name].append(seconds(contenders[name]))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{'':10} {'images/s':>9}  (lowest to highest of {rounds} rounds)")
    for name, values in times.items():
        low, high = (UPDATES * BATCH / v for v in (max(values), min(values)))
        print(f"{name:10} {UPDATES * BATCH / medians[name]:9.0f}  ({low:.0f} to {high:.0f})")
    print(f"twofold reaches {medians['bare loop'] / medians['twofold']:.3f} of the bare loop")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)

"""CIFAR-10: 60,000 photographs of ten classes of things, 32 x 32.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
ROOT/cifar-10-batches-py or ROOT/cifar-10-batches-bin; official train and test, val is carved from train.
"""

from __future__ import annotations

from torchvision.datasets import CIFAR10

from twofold.datasets import _cifar
from twofold.datasets._arrays import Arrays

BINARY = _cifar.binary(
    "cifar-10-batches-bin",
    [f"data_batch_{k}.bin" for k in range(1, 6)],
    "test_batch.bin",
    "batches.meta.txt",
    before=1,
)


def build(argument: str) -> Arrays:
    """`cifar10[:ROOT][?partial]`; ROOT is the folder data where none is given."""
    layouts = (_cifar.python(CIFAR10, "labels"), BINARY)
    return _cifar.build("cifar10", argument, layouts, {"train": 50_000, "test": 10_000}, classes=10)

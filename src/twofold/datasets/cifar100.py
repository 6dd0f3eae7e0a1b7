"""CIFAR-100: 60,000 photographs of a hundred classes of things, 32 x 32.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
ROOT/cifar-100-python or ROOT/cifar-100-binary; official train and test, val is carved from train; the fine labels.
"""

from __future__ import annotations

from torchvision.datasets import CIFAR100

from twofold.datasets import _cifar
from twofold.datasets._arrays import Arrays

# A record's first byte is the coarse label.
BINARY = _cifar.binary("cifar-100-binary", ["train.bin"], "test.bin", "fine_label_names.txt", before=2)


def build(argument: str) -> Arrays:
    """`cifar100[:ROOT][?partial]`; ROOT is the folder data where none is given."""
    layouts = (_cifar.python(CIFAR100, "fine_labels"), BINARY)
    return _cifar.build("cifar100", argument, layouts, {"train": 50_000, "test": 10_000}, classes=100)

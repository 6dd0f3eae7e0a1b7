"""CUB-200-2011: 11,788 photographs of 200 species of birds, from the folder CUB_200_2011.

Source: C. Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", Caltech CNS-TR-2011-001.
Official train and test; val is carved from train. Classes are named as in classes.txt.
"""

from __future__ import annotations

from twofold.datasets import _official
from twofold.datasets._files import Files

ARCHIVE = _official.Archive(
    name="cub",
    folder="CUB_200_2011",
    pieces=("images/", "images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"),
    page="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    classes=200,
    images={"train": 5994, "test": 5794},
)


def build(argument: str) -> Files:
    """`cub:DIR[?partial]`; images in the order of images.txt."""
    return _official.from_lists(ARCHIVE.open(argument))

"""NABirds: 48,562 photographs of 555 visual categories of North American birds, from the folder nabirds.

Source: G. Van Horn et al., "Building a bird recognition app and large scale dataset with citizen scientists",
CVPR 2015.
Official train and test; val is carved from train. A category is an entry of classes.txt that has images: the other
entries are the groups above them, so hierarchy.txt is not needed.
"""

from __future__ import annotations

from twofold.datasets import _official
from twofold.datasets._files import Files

ARCHIVE = _official.Archive(
    name="nabirds",
    folder="nabirds",
    pieces=("images/", "images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"),
    page="https://dl.allaboutbirds.org/nabirds",
    classes=555,
    images={"train": 23929, "test": 24633},
)


def build(argument: str) -> Files:
    """`nabirds:DIR[?partial]`; images in the order of images.txt."""
    return _official.from_lists(ARCHIVE.open(argument))

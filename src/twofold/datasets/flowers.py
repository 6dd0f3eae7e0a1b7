"""Oxford Flowers-102: 8,189 photographs of 102 kinds of flowers, from jpg/, imagelabels.mat and setid.mat.

Source: M.-E. Nilsback, A. Zisserman, "Automated flower classification over a large number of classes", ICVGIP 2008.
Train, val and test are the official ones; the authors publish no names of the classes in the archive, so they are
those that torchvision lists.
"""

from __future__ import annotations

from torchvision.datasets import Flowers102

from twofold.datasets import _official
from twofold.datasets._files import Files
from twofold.datasets._official import Item

ARCHIVE = _official.Archive(
    name="flowers",
    folder="flowers-102",
    pieces=("jpg/", "imagelabels.mat", "setid.mat"),
    page="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    classes=102,
    images={"train": 1020, "val": 1020, "test": 6149},
)
PARTS = {"train": "trnid", "val": "valid", "test": "tstid"}


def build(argument: str) -> Files:
    """`flowers:DIR[?partial]`; images in the order of the official parts, train first."""
    place = ARCHIVE.open(argument)
    names: list[str] = Flowers102.classes
    images, labelled, divided = place.path("jpg/"), place.path("imagelabels.mat"), place.path("setid.mat")
    labels = _official.numbers(_official.mat(labelled, "labels")[0], labelled, top=ARCHIVE.classes)
    items = [
        Item(images / f"image_{number:05d}.jpg", names[labels[number - 1] - 1], split)
        for split, values in zip(PARTS, _official.mat(divided, *PARTS.values()), strict=True)
        for number in _official.numbers(values, divided, top=len(labels))
    ]
    return place.files(items, names)

"""Stanford Dogs: 20,580 photographs of 120 breeds of dogs, from the folders Images and lists.

Source: A. Khosla et al., "Novel Dataset for Fine-Grained Image Categorization", FGVC workshop, CVPR 2011.
Official train and test; val is carved from train. Classes are named as the folders are, with ImageNet's number.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from twofold.datasets import _official
from twofold.datasets._files import Files
from twofold.datasets._official import Item
from twofold.errors import BadData

ARCHIVE = _official.Archive(
    name="dogs",
    folder="stanford_dogs",
    pieces=("Images/", "lists/train_list.mat", "lists/test_list.mat"),
    page="http://vision.stanford.edu/aditya86/ImageNetDogs/",
    classes=120,
    images={"train": 12000, "test": 8580},
)


def build(argument: str) -> Files:
    """`dogs:DIR[?partial]`; images in the order of the lists, train first."""
    place = ARCHIVE.open(argument)
    breeds: dict[str, int] = {}
    items = [item for split in ARCHIVE.images for item in _listed(place, split, breeds)]
    return place.files(items, sorted(breeds, key=lambda breed: breeds[breed]))


def _listed(place: _official.Place, split: str, breeds: dict[str, int]) -> list[Item]:
    """The images of one list; the number of each breed is noted in `breeds`, and must be the same in both lists."""
    path = place.path(f"lists/{split}_list.mat")
    files, labels = _official.mat(path, "file_list", "labels")
    names, images = [str(name) for name in files], place.path("Images/")
    items = [Item(images / name, PurePosixPath(name).parent.name, split) for name in names]
    found = _official.numbers(labels, path, top=ARCHIVE.classes)
    if len(found) != len(items) or any(
        breeds.setdefault(item.label, number) != number for item, number in zip(items, found, strict=True)
    ):
        raise BadData(
            f"{path}: its labels do not fit the folders of its files. Put the file of the archive in its place."
        )
    return items

"""FGVC-Aircraft: 10,000 photographs of 100 variants of aircraft, from the folder fgvc-aircraft-2013b.

Source: S. Maji et al., "Fine-Grained Visual Classification of Aircraft", arXiv 1306.5151.
The official trainval and test; val is carved from trainval, as for the other sets. `?level=family` (70 classes) and
`?level=manufacturer` (30) read the coarser labels of the same images.
"""

from __future__ import annotations

from twofold.datasets import _official
from twofold.datasets._files import Files
from twofold.datasets._official import Item

LEVELS = {"variant": 100, "family": 70, "manufacturer": 30}
LISTS = {"train": "trainval", "test": "test"}


def archive(level: str) -> _official.Archive:
    """The archive as it is read for one level of the labels."""
    return _official.Archive(
        name="aircraft",
        folder="fgvc-aircraft-2013b",
        pieces=("data/images/", *(f"data/images_{level}_{part}.txt" for part in LISTS.values())),
        page="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        classes=LEVELS[level],
        images={"train": 6667, "test": 3333},
        words=tuple(f"level={name}" for name in LEVELS),
    )


def build(argument: str) -> Files:
    """`aircraft:DIR[?level=variant|family|manufacturer][&partial]`; images in the order of the lists."""
    asked = _official.words(argument)
    level = next((name for name in LEVELS if f"level={name}" in asked), "variant")
    place = archive(level).open(argument)
    images = place.path("data/images/")
    items = [
        Item(images / f"{image}.jpg", label, split)
        for split, part in LISTS.items()
        for image, label in _official.pairs(place.path(f"data/images_{level}_{part}.txt")).items()
    ]
    return place.files(items, sorted({item.label for item in items}))

"""Stanford Cars: 16,185 photographs of 196 models of cars, from the devkit's lists or from one folder a class.

Source: J. Krause et al., "3D Object Representations for Fine-Grained Categorization", 3dRR workshop, ICCV 2013.
Official train and test; val is carved from train. A copy without lists, car_data/train/<class>/*.jpg and
car_data/test/<class>/*.jpg, holds the same images; a slash in a class's name is another character there.
"""

from __future__ import annotations

from pathlib import Path

from twofold.datasets import _official
from twofold.datasets._files import Files, in_folders
from twofold.datasets._official import Item
from twofold.errors import BadData

META = "devkit/cars_meta.mat"
LISTS = {"train": "devkit/cars_train_annos.mat", "test": "devkit/cars_test_annos_withlabels.mat"}
ARCHIVE = _official.Archive(
    name="cars",
    folder="stanford_cars",
    pieces=(META, *LISTS.values(), "cars_train/", "cars_test/"),
    page="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    classes=196,
    images={"train": 8144, "test": 8041},
    otherwise="train/<class>/ and test/<class>/, the copy without lists",
)
COPY = _official.Archive(
    name="cars",
    folder="car_data",
    pieces=("train/", "test/"),
    page=ARCHIVE.page,
    classes=ARCHIVE.classes,
    images=ARCHIVE.images,
)


def build(argument: str) -> Files:
    """`cars:DIR[?partial]`; images in the order of the lists, train first, or of the folders' names."""
    folder = Path(argument.partition("?")[0])
    lists = not folder.is_dir() or ARCHIVE.home(folder)[1]
    if lists and folder.is_dir() and not COPY.home(folder)[1]:
        return _from_folders(COPY.open(argument))
    return _from_lists(ARCHIVE.open(argument))


def _from_folders(place: _official.Place) -> Files:
    tops = {split: place.path(f"{split}/") for split in COPY.images}
    items = [Item(top / name, label, split) for split, top in tops.items() for label, name in in_folders(top)]
    return place.files(items, sorted({item.label for item in items}))


def _from_lists(place: _official.Place) -> Files:
    (named,) = _official.mat(place.path(META), "class_names")
    names = [str(name) for name in named]
    items = [item for split in LISTS for item in _listed(place, split, names)]
    return place.files(items, names)


def _listed(place: _official.Place, split: str, names: list[str]) -> list[Item]:
    path = place.path(LISTS[split])
    (rows,) = _official.mat(path, "annotations")
    lacking = {"fname", "class"} - set(rows.dtype.names or ())
    if lacking:
        raise BadData(
            f"{path} lists no {' and no '.join(sorted(lacking))} of its images; the test list without labels is not "
            f"{Path(LISTS['test']).name}. Put the file of the archive in its place ({place.archive.page})."
        )
    labels = _official.numbers(rows["class"], path, top=len(names))
    folder = place.path(f"cars_{split}/")
    return [Item(folder / str(name), names[k - 1], split) for name, k in zip(rows["fname"], labels, strict=True)]

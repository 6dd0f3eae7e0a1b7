"""Small trees in the exact layouts that the archives of the six fine-grained data sets unpack to.

A picture says what it is: its red tells the class, its green the split, and its blue and size its number; so a test
can compare what a data set says of an image with what the image is.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.recfunctions import repack_fields
from PIL import Image
from scipy.io import savemat

COUNTS = {"train": 30, "test": 15}
SHADES = {"train": 0, "val": 100, "test": 200}
Paint = Callable[[Path, int, str, int], None]


def paint(path: Path, label: int, split: str, number: int) -> None:
    """A flat picture of class `label` (from 0) and a split."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (40 * label, SHADES[split], number % 50 * 5)
    Image.new("RGB", (10 + number % 3, 9), colour).save(path, quality=95)


def told(image: Any) -> tuple[int, str]:
    """Class and split that a picture of `paint` says."""
    red, green, _ = (float(channel.float().mean()) for channel in image)
    return round(red / 40), min(SHADES, key=lambda split: abs(SHADES[split] - green))


def linked(to: Path) -> Paint:
    """Every picture is one file with many names: trees of the published sizes in little time."""
    Image.new("RGB", (4, 4)).save(to)

    def link(path: Path, label: int, split: str, number: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(to, path)

    return link


def plan(classes: int, counts: Mapping[str, int]) -> list[tuple[int, str]]:
    """(class, split) of each image; every split goes round the classes."""
    return [(k % classes, split) for split, count in counts.items() for k in range(count)]


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def cells(values: list[str]) -> np.ndarray[Any, Any]:
    """A cell array of MATLAB, [N, 1]."""
    return np.array([[value] for value in values], dtype=object)


def aircraft(folder: Path, classes: int = 3, counts: Mapping[str, int] = COUNTS, paint: Paint = paint) -> Path:
    """Variants 0, 1, 2, ...; two neighbours are a family; all are of two makers."""
    root = folder / "fgvc-aircraft-2013b"
    names = ["707-320", "F/A-18", "Model B200", *(f"Variant {k:03d}" for k in range(3, classes))]
    said = {
        "variant": lambda k: names[k],
        "family": lambda k: f"Family {k // 2}",
        "manufacturer": lambda k: f"Maker of {k % 2}",
    }
    images = plan(classes, counts)
    for number, (k, split) in enumerate(images):
        paint(root / "data" / "images" / f"{number:07d}.jpg", k, split, number)
    for level, name in said.items():
        for split, part in (("train", "trainval"), ("test", "test")):
            lines = [f"{number:07d} {name(k)}" for number, (k, where) in enumerate(images) if where == split]
            write(root / "data" / f"images_{level}_{part}.txt", lines)
    for plural, level in (("variants", "variant"), ("families", "family"), ("manufacturers", "manufacturer")):
        write(root / "data" / f"{plural}.txt", sorted({said[level](k) for k in range(classes)}))
    return root


def cars(folder: Path, classes: int = 3, counts: Mapping[str, int] = COUNTS, paint: Paint = paint) -> Path:
    root = folder / "stanford_cars"
    boxes = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"]
    names = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo Convertible 2012"]
    names += [f"Wagon {k}" for k in range(3, classes)]
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array([names], dtype=object)})
    for split, count in counts.items():
        rows = np.empty((1, count), dtype=[(name, object) for name in [*boxes, "class", "fname"]])
        for k in range(count):
            rows[0, k] = (1, 1, 9, 9, k % classes + 1, f"{k + 1:05d}.jpg")
            paint(root / f"cars_{split}" / f"{k + 1:05d}.jpg", k % classes, split, k)
        listed = root / ("devkit/cars_train_annos.mat" if split == "train" else "cars_test_annos_withlabels.mat")
        savemat(listed, {"annotations": rows})
    savemat(root / "devkit" / "cars_test_annos.mat", {"annotations": repack_fields(rows[[*boxes, "fname"]])})
    return root


def car_data(folder: Path, classes: int = 3, counts: Mapping[str, int] = COUNTS, paint: Paint = paint) -> Path:
    """The copy of Cars without lists."""
    for number, (k, split) in enumerate(plan(classes, counts)):
        paint(folder / "car_data" / split / f"Acura RL {2000 + k}" / f"{number:05d}.jpg", k, split, number)
    return folder / "car_data"


def cub(folder: Path, classes: int = 3, counts: Mapping[str, int] = COUNTS, paint: Paint = paint) -> Path:
    root = folder / "CUB_200_2011"
    names = [f"{k + 1:03d}.Grebe_of_{k}" for k in range(classes)]
    images = plan(classes, counts)
    paths = [f"{names[k]}/Grebe_{number:04d}_{number * 7}.jpg" for number, (k, _) in enumerate(images)]
    for number, (k, split) in enumerate(images):
        paint(root / "images" / paths[number], k, split, number)
    write(root / "images.txt", [f"{n} {path}" for n, path in enumerate(paths, start=1)])
    write(root / "image_class_labels.txt", [f"{n} {k + 1}" for n, (k, _) in enumerate(images, start=1)])
    write(root / "train_test_split.txt", [f"{n} {int(s == 'train')}" for n, (_, s) in enumerate(images, start=1)])
    write(root / "classes.txt", [f"{n} {name}" for n, name in enumerate(names, start=1)])
    return root


def dogs(folder: Path, classes: int = 3, counts: Mapping[str, int] = COUNTS, paint: Paint = paint) -> Path:
    root = folder / "stanford_dogs"
    breeds = [f"n020{k:05d}-Hound_{k}" for k in range(classes)]
    listed: dict[str, list[tuple[str, int]]] = {split: [] for split in counts}
    for number, (k, split) in enumerate(plan(classes, counts)):
        name = f"{breeds[k]}/{breeds[k].partition('-')[0]}_{number}"
        paint(root / "Images" / f"{name}.jpg", k, split, number)
        listed[split].append((name, k + 1))
    (root / "lists").mkdir(parents=True)
    for part, rows in (
        ("train", listed["train"]),
        ("test", listed["test"]),
        ("file", [*listed["train"], *listed["test"]]),
    ):
        content = {"file_list": cells([f"{name}.jpg" for name, _ in rows])}
        content["annotation_list"] = cells([name for name, _ in rows])
        content["labels"] = np.array([[label] for _, label in rows], dtype=np.uint8)
        savemat(root / "lists" / f"{part}_list.mat", content)
    return root


FLOWERS = {"train": 12, "val": 9, "test": 15}


def flowers(folder: Path, classes: int = 3, counts: Mapping[str, int] = FLOWERS, paint: Paint = paint) -> Path:
    root = folder / "flowers-102"
    images = plan(classes, counts)
    for number, (k, split) in enumerate(images, start=1):
        paint(root / "jpg" / f"image_{number:05d}.jpg", k, split, number)
    savemat(root / "imagelabels.mat", {"labels": np.array([[k + 1 for k, _ in images]], dtype=np.uint8)})
    own = {split: [n for n, (_, where) in enumerate(images, start=1) if where == split] for split in counts}
    parts = {"trnid": own["train"], "valid": own["val"], "tstid": own["test"]}
    savemat(root / "setid.mat", {name: np.array([numbers], dtype=np.uint16) for name, numbers in parts.items()})
    return root


def nabirds(folder: Path, classes: int = 3, counts: Mapping[str, int] = COUNTS, paint: Paint = paint) -> Path:
    """Classes 295, 296, ...; 0 and 1 are groups above them and have no images."""
    root = folder / "nabirds"
    images = plan(classes, counts)
    ids = [str(uuid.UUID(int=number * 7919)) for number in range(len(images))]
    paths = [f"{295 + k:04d}/{name.replace('-', '')}.jpg" for name, (k, _) in zip(ids, images, strict=True)]
    for number, (k, split) in enumerate(images):
        paint(root / "images" / paths[number], k, split, number)
    birds = [f"{295 + k} Common Eider (Plumage {k})" for k in range(classes)]
    write(root / "classes.txt", ["0 Birds", "1 Ducks, Geese, and Swans", *birds])
    write(root / "hierarchy.txt", ["1 0", *(f"{295 + k} 1" for k in range(classes))])
    write(root / "images.txt", [f"{name} {path}" for name, path in zip(ids, paths, strict=True)])
    write(root / "image_class_labels.txt", [f"{n} {295 + k}" for n, (k, _) in zip(ids, images, strict=True)])
    write(root / "train_test_split.txt", [f"{n} {int(s == 'train')}" for n, (_, s) in zip(ids, images, strict=True)])
    write(root / "sizes.txt", [f"{name} 10 9" for name in ids])
    return root


TREES = {"aircraft": aircraft, "cars": cars, "cub": cub, "dogs": dogs, "flowers": flowers, "nabirds": nabirds}

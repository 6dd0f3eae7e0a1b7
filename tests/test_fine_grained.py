"""The six fine-grained data sets: what is in their archives, and what is said where a part of one is missing."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

import tiny_fine_grained as tiny
from twofold import registry
from twofold.datasets import _decode, _official, base
from twofold.datasets.base import SPLITS, Dataset
from twofold.errors import BadData, UnknownName

MEMBERS = sorted(tiny.TREES)
DOCS = Path(__file__).parents[1] / "docs" / "datasets.md"


def module(name: str) -> ModuleType:
    return registry.find("datasets", name)


def archive(name: str) -> _official.Archive:
    return module(name).archive("variant") if name == "aircraft" else module(name).ARCHIVE


def fails(data: str) -> str:
    """The one line that a DATA string is refused with."""
    with pytest.raises(BadData) as caught:
        base.load(data)
    message = str(caught.value)
    assert "\n" not in message and message.endswith((".", ")."))
    return message


def truth(dataset: Dataset) -> dict[str, Counter[int]]:
    """Images of each class by the split that they say they are of; each must say its own label."""
    found: dict[str, Counter[int]] = {}
    for split in SPLITS:
        rows = dataset.build(split)
        for image, label in zip(rows.read(range(len(rows))), rows.labels, strict=True):
            said, where = tiny.told(image)
            assert said == label and (where == split or (where, split) == ("train", "val"))
            found.setdefault(where, Counter())[said] += 1
    return found


@pytest.mark.parametrize("name", MEMBERS)
def test_every_image_is_in_its_official_split_with_its_own_label(tmp_path: Path, name: str) -> None:
    dataset = base.load(f"{name}:{tiny.TREES[name](tmp_path)}?partial")
    counts = tiny.FLOWERS if name == "flowers" else tiny.COUNTS
    assert truth(dataset) == {split: Counter(dict.fromkeys(range(3), n // 3)) for split, n in counts.items()}
    carved = (24, 6, 15) if name != "flowers" else (12, 9, 15)
    assert tuple(len(dataset.build(split)) for split in SPLITS) == carved


@pytest.mark.parametrize("name", MEMBERS)
def test_the_folder_or_its_parent_is_the_same_data(tmp_path: Path, name: str) -> None:
    root = tiny.TREES[name](tmp_path)
    inside, above = base.load(f"{name}:{root}?partial"), base.load(f"{name}:{tmp_path}?partial")
    assert inside.fingerprint == above.fingerprint and inside.classes == above.classes


def test_classes_have_the_archives_own_names(tmp_path: Path) -> None:
    classes = {name: base.load(f"{name}:{tree(tmp_path)}?partial").classes for name, tree in tiny.TREES.items()}
    assert classes == {
        "aircraft": ("707-320", "F/A-18", "Model B200"),
        "cars": (
            "AM General Hummer SUV 2000",
            "Ram C/V Cargo Van Minivan 2012",
            "smart fortwo Convertible 2012",
        ),
        "cub": ("001.Grebe_of_0", "002.Grebe_of_1", "003.Grebe_of_2"),
        "dogs": ("n02000000-Hound_0", "n02000001-Hound_1", "n02000002-Hound_2"),
        "flowers": ("pink primrose", "hard-leaved pocket orchid", "canterbury bells"),
        "nabirds": tuple(f"Common Eider (Plumage {k})" for k in range(3)),
    }


def test_classes_that_share_a_name_stay_apart(tmp_path: Path) -> None:
    root = tiny.nabirds(tmp_path)
    tiny.write(root / "classes.txt", ["0 Birds", "295 Common Eider", "296 Common Eider", "297 Mallard"])
    classes = base.load(f"nabirds:{root}?partial").classes
    assert classes == ("Common Eider (295)", "Common Eider (296)", "Mallard")


def test_aircraft_have_three_levels(tmp_path: Path) -> None:
    tiny.aircraft(tmp_path, classes=4)
    assert base.load(f"aircraft:{tmp_path}?level=family&partial").classes == ("Family 0", "Family 1")
    maker = base.load(f"aircraft:{tmp_path}?partial&level=manufacturer")
    assert maker.classes == ("Maker of 0", "Maker of 1") and maker.name.endswith("?partial&level=manufacturer")
    assert "instead of 70" in fails(f"aircraft:{tmp_path}?level=family")
    with pytest.raises(UnknownName, match=r"Did you mean 'level=family'.*level=manufacturer, level=variant, partial"):
        base.load(f"aircraft:{tmp_path}?level=familiy")


def test_cars_are_read_from_the_copy_in_folders(tmp_path: Path) -> None:
    dataset = base.load(f"cars:{tiny.car_data(tmp_path)}?partial")
    assert truth(dataset) == {split: Counter({0: n // 3, 1: n // 3, 2: n // 3}) for split, n in tiny.COUNTS.items()}
    assert dataset.classes == ("Acura RL 2000", "Acura RL 2001", "Acura RL 2002")
    assert base.load(f"cars:{tmp_path}?partial").fingerprint == dataset.fingerprint
    assert "30 train images instead of 8,144, 15 test images instead of 8,041, 3 classes instead" in fails(
        f"cars:{tmp_path}"
    )


def test_cars_lists_go_before_a_copy_beside_them(tmp_path: Path) -> None:
    root = tiny.cars(tmp_path)
    for split in tiny.COUNTS:
        shutil.copytree(tiny.car_data(tmp_path / split) / split, root / split)
    assert "Ram C/V Cargo Van Minivan 2012" in base.load(f"cars:{root}?partial").classes
    (root / "devkit" / "cars_meta.mat").unlink()
    assert base.load(f"cars:{root}?partial").classes[0] == "Acura RL 2000"


PIECES = [(name, piece) for name in MEMBERS for piece in archive(name).pieces]


@pytest.mark.parametrize(("name", "piece"), PIECES)
@pytest.mark.parametrize("words", ["", "?partial"])
def test_a_missing_piece_is_named_with_the_tree_and_the_page(tmp_path: Path, name: str, piece: str, words: str) -> None:
    root = tiny.TREES[name](tmp_path)
    path = next(p for p in (root / piece, root / Path(piece).name) if p.exists())
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    message = fails(f"{name}:{root}{words}")
    assert f"{root} lacks {piece}. " in message
    assert archive(name).page in message and all(piece in message for piece in archive(name).pieces)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_folder_that_is_none_says_what_to_give(tmp_path: Path, name: str) -> None:
    assert f"{tmp_path / 'absent'} is not a folder. DIR, or DIR/" in fails(f"{name}:{tmp_path / 'absent'}")
    for nothing in (f"{name}:", name, f"{name}:?partial"):
        assert "names no folder. DIR, or DIR/" in fails(nothing)
    assert "lacks" in fails(f"{name}:{tmp_path}")
    with pytest.raises(UnknownName, match=rf"No setting of {name} 'partail'. Did you mean 'partial'"):
        base.load(f"{name}:{tmp_path}?partail")


@pytest.mark.parametrize("name", MEMBERS)
def test_other_counts_than_the_published_are_refused(tmp_path: Path, name: str) -> None:
    root, published = tiny.TREES[name](tmp_path), archive(name)
    message = fails(f"{name}:{root}")
    counts = tiny.FLOWERS if name == "flowers" else tiny.COUNTS
    for split, count in counts.items():
        assert f"{count} {split} images instead of {published.images[split]:,}" in message
    assert f"3 classes instead of {published.classes}" in message
    assert f"?{_official.PARTIAL} for a part" in message and published.page in message


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make what is published of a data set as small as the tests' trees."""

    def shrink(name: str, classes: int = 3) -> None:
        counts = tiny.FLOWERS if name == "flowers" else tiny.COUNTS
        little = replace(archive(name), classes=classes, images=counts)
        where, value = ("archive", lambda level: little) if name == "aircraft" else ("ARCHIVE", little)
        monkeypatch.setattr(module(name), where, value)

    return shrink


@pytest.mark.parametrize("name", MEMBERS)
def test_the_published_counts_are_accepted_and_one_image_less_is_not(
    tmp_path: Path, name: str, small: Callable[..., None]
) -> None:
    small(name)
    root = tiny.TREES[name](tmp_path)
    whole, part = base.load(f"{name}:{root}"), base.load(f"{name}:{root}?partial")
    assert whole.fingerprint == part.fingerprint and whole.name != part.name
    pictures = sorted(root.rglob("*.jpg"))
    pictures[0].unlink()
    message = fails(f"{name}:{root}")
    assert f"1 of {len(pictures)} images that its lists name are not there, the first is {pictures[0]}." in message
    assert sum(len(base.load(f"{name}:{root}?partial").build(s)) for s in SPLITS) == len(pictures) - 1


def test_a_class_without_images_is_named(tmp_path: Path, small: Callable[..., None]) -> None:
    small("cub", classes=4)
    root = tiny.cub(tmp_path)
    with (root / "classes.txt").open("a") as file:
        file.write("4 004.Auklet\n")
    assert "3 classes instead of 4 (no image of 004.Auklet)" in fails(f"cub:{root}")


@pytest.mark.parametrize("name", MEMBERS)
def test_a_class_in_test_but_not_in_train_is_named(tmp_path: Path, name: str) -> None:
    root = tiny.TREES[name](tmp_path)
    dataset = base.load(f"{name}:{root}?partial")
    for path in root.rglob("*.jpg"):
        if tiny.told(_decode.decode(path)) == (1, "train"):
            path.unlink()
    message = fails(f"{name}:{root}?partial")
    assert f"train has no image of {dataset.classes[1]}, other splits have." in message


def test_a_split_without_images_is_named(tmp_path: Path) -> None:
    root = tiny.cars(tmp_path)
    for path in (root / "cars_test").iterdir():
        path.unlink()
    assert f"{root} holds no test image that its lists name" in fails(f"cars:{root}?partial")


MATS = [(name, piece) for name, piece in PIECES if piece.endswith(".mat")]


@pytest.mark.parametrize(("name", "piece"), MATS)
def test_a_wrong_mat_is_one_line_with_its_name(tmp_path: Path, name: str, piece: str) -> None:
    root = tiny.TREES[name](tmp_path)
    path = next(p for p in (root / piece, root / Path(piece).name) if p.exists())
    for content in ("labels, as text\n" * 20, ""):
        path.write_text(content)
        assert f"{path} cannot be read as a MATLAB file (" in fails(f"{name}:{root}?partial")
    savemat(path, {"weights": np.zeros(3)})
    assert f"{path} holds weights and not " in fails(f"{name}:{root}?partial")


@pytest.mark.parametrize(
    ("name", "piece", "content", "says"),
    [
        ("flowers", "imagelabels.mat", {"labels": np.arange(36)}, "numbers that are not 1 to 102"),
        ("flowers", "imagelabels.mat", {"labels": np.full(36, 1.5)}, "numbers that are not 1 to 102"),
        ("flowers", "imagelabels.mat", {"labels": np.array(["rose"], dtype=object)}, "numbers that are not"),
        ("flowers", "imagelabels.mat", {"labels": np.ones((6, 6))}, "numbers that are not 1 to 102"),
        ("flowers", "imagelabels.mat", {"labels": np.arange(1, 4)}, "setid.mat holds numbers that are not 1 to 3"),
        ("dogs", "lists/test_list.mat", {"file_list": tiny.cells(["a/b.jpg"]), "labels": [121]}, "not 1 to 120"),
        ("dogs", "lists/test_list.mat", {"file_list": tiny.cells(["a/b.jpg"]), "labels": [1, 2]}, "do not fit"),
        (
            "dogs",
            "lists/test_list.mat",
            {"file_list": tiny.cells(["n02000000-Hound_0/x.jpg"]), "labels": [2]},
            "its labels do not fit the folders",
        ),
        ("cars", "devkit/cars_train_annos.mat", {"annotations": np.zeros(3)}, "lists no class and no fname"),
        ("cars", "devkit/cars_meta.mat", {"class_names": tiny.cells(["Acura"])}, "numbers that are not 1 to 1"),
    ],
)
def test_a_mat_with_other_values_is_one_line(
    tmp_path: Path, name: str, piece: str, content: dict[str, Any], says: str
) -> None:
    root = tiny.TREES[name](tmp_path)
    savemat(root / piece, content)
    assert says in fails(f"{name}:{root}?partial")


def test_the_test_list_of_cars_without_labels_is_not_taken(tmp_path: Path) -> None:
    root = tiny.cars(tmp_path)
    shutil.copy(root / "devkit" / "cars_test_annos.mat", root / "cars_test_annos_withlabels.mat")
    assert "cars_test_annos_withlabels.mat lists no class of its images; the test list without" in fails(f"cars:{root}")


@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        ("images.txt", "1 001.Grebe_of_0/Grebe_0000_0.jpg", "line 46: '1' stands there twice"),
        ("images.txt", "99 001.Grebe_of_0/Grebe_0000_0.jpg", "image_class_labels.txt does not fit"),
        ("image_class_labels.txt", "99", "line 46: '99' has nothing behind it"),
    ],
)
def test_a_list_that_does_not_fit_is_named(tmp_path: Path, file: str, line: str, says: str) -> None:
    root = tiny.cub(tmp_path)
    with (root / file).open("a") as lines:
        lines.write(line + "\n")
    assert says in fails(f"cub:{root}?partial")


def test_values_that_no_list_explains_are_named(tmp_path: Path) -> None:
    root = tiny.cub(tmp_path)
    tiny.write(root / "classes.txt", ["1 Grebe", "2 Auklet"])
    assert "classes.txt does not fit the lists beside it: '3' is none of its values (1, 2)" in fails(f"cub:{root}")
    tiny.write(root / "train_test_split.txt", [f"{k} yes" for k in range(1, 46)])
    tiny.write(root / "classes.txt", ["1 Grebe", "2 Auklet", "3 Gull"])
    assert "train_test_split.txt does not fit the lists beside it: 'yes' is none of" in fails(f"cub:{root}")
    (root / "images.txt").write_bytes(bytes(range(256)))
    assert f"{root / 'images.txt'} is not a text file" in fails(f"cub:{root}")


@pytest.mark.parametrize("words", ["", "?partial"])
def test_an_image_in_train_and_test_is_named(tmp_path: Path, words: str) -> None:
    root = tiny.aircraft(tmp_path)
    with (root / "data" / "images_variant_test.txt").open("a") as lines:
        lines.write("0000004 F/A-18\n")
    twice = root / "data" / "images" / "0000004.jpg"
    assert f"its lists name {twice} more than once" in fails(f"aircraft:{root}{words}")


def test_an_image_outside_the_archive_is_none(tmp_path: Path) -> None:
    root = tiny.cub(tmp_path)
    outside = tmp_path / "outside.jpg"
    tiny.paint(outside, 0, "train", 0)
    text = (root / "images.txt").read_text()
    (root / "images.txt").write_text(text.replace("001.Grebe_of_0/Grebe_0000_0.jpg", str(outside)))
    assert f"1 of 45 images that its lists name are not there, the first is {outside}" in fails(f"cub:{root}")


def test_flowers_of_the_published_size_are_whole(tmp_path: Path) -> None:
    """8,189 names of one picture, so that the published numbers themselves are met once."""
    published = archive("flowers")
    root = tiny.flowers(tmp_path, 102, published.images, tiny.linked(tmp_path / "picture.jpg"))
    dataset = base.load(f"flowers:{root}")
    assert [len(dataset.build(split)) for split in SPLITS] == [1020, 1020, 6149]
    assert len(dataset.classes) == 102 and "?" not in dataset.name


def test_the_page_says_the_numbers_that_are_checked() -> None:
    rows = [line.split("|")[1:-1] for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    said = {cells[0].strip().strip("`").partition(":")[0]: [cell.strip() for cell in cells] for cells in rows}
    for name in MEMBERS:
        published = archive(name)
        counts = " / ".join(f"{count:,}" for count in published.images.values())
        assert said[name][2:4] == [str(published.classes), counts] and published.page in said[name][4]


def test_extract_reads_a_part_and_says_so(tmp_path: Path, command: Any) -> None:
    root = tiny.cub(tmp_path)
    flags = ("--pool", 8, "--quiet", "--split", "train")
    code, _, err = command("extract", "--model", "pixels:8", "--data", f"cub:{root}", "--out", tmp_path / "s", *flags)
    assert code == 2 and len(err.strip().splitlines()) == 1 and "3 classes instead of 200" in err
    assert not (tmp_path / "s").exists()
    data = f"cub:{root}?partial"
    code, _, err = command("extract", "--model", "pixels:8", "--data", data, "--out", tmp_path / "s", *flags)
    assert code == 0, err
    assert "?partial" in (tmp_path / "s" / "zarr.json").read_text()

"""What every data set promises; a new data set is tested the day its file lands."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import tiny_fine_grained
import tiny_sources
from twofold import registry
from twofold.datasets import base
from twofold.datasets.base import SPLITS, Dataset
from twofold.errors import BadData, SealedSplit, UnknownName


def pictures(folder: Path) -> Path:
    """Three classes of twenty small pictures of different sizes."""
    chance = np.random.default_rng(0)
    for name in ("apple", "bee", "cat"):
        (folder / name).mkdir(parents=True)
        for k in range(20):
            pixels = chance.integers(0, 256, (9 + k % 3, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k:02d}.png")
    return folder


def fine_grained(name: str, folder: Path) -> str:
    """Three classes of one of the six fine-grained data sets, in its archive's layout."""
    return f"{name}:{tiny_fine_grained.TREES[name](folder)}?partial"


# A DATA string of each member of the room; the folder is there for members that read one.
EXAMPLES: dict[str, Callable[[Path], str]] = {
    "digits": lambda folder: "digits",
    "folder": lambda folder: f"folder:{pictures(folder)}",
    "cifar10": lambda folder: f"cifar10:{tiny_sources.cifar10(folder)}?partial",
    "cifar100": lambda folder: f"cifar100:{tiny_sources.cifar100(folder)}?partial",
    "imagenet": lambda folder: f"imagenet:{tiny_sources.imagenet(folder)}?partial",
    "imagenet50": lambda folder: f"imagenet50:{tiny_sources.imagenet(folder, flat=True)}?partial",
    "hf": lambda folder: f"hf:{tiny_sources.hf(folder)}",
    "wds": lambda folder: f"wds:{tiny_sources.wds(folder)}",
    **{name: partial(fine_grained, name) for name in tiny_fine_grained.TREES},
}


@pytest.fixture(scope="module", params=sorted(EXAMPLES))
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return EXAMPLES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def dataset(data: str) -> Dataset:
    return base.load(data)


def stacked(images: Tensor | list[Tensor]) -> list[Tensor]:
    return list(images)


def test_every_member_has_an_example() -> None:
    assert set(registry.names("datasets")) == set(EXAMPLES)


def test_splits_share_no_image(dataset: Dataset) -> None:
    indices = np.concatenate([dataset.build(split).index for split in SPLITS])
    assert len(np.unique(indices)) == len(indices)


def test_splits_are_the_same_for_ever(data: str, dataset: Dataset) -> None:
    again = base.load(data)
    assert again.fingerprint == dataset.fingerprint and len(dataset.fingerprint) >= 16
    assert (again.name, again.classes) == (dataset.name, dataset.classes)
    for split in SPLITS:
        first, second = dataset.build(split), again.build(split)
        np.testing.assert_array_equal(first.index, second.index)
        np.testing.assert_array_equal(first.labels, second.labels)
        assert all(map(torch.equal, first.read(range(5)), second.read(range(5))))


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_positions_in_the_classes(dataset: Dataset, split: str) -> None:
    rows = dataset.build(split)
    assert rows.labels.dtype == rows.index.dtype == np.int64
    assert len(rows) == len(rows.labels) == len(rows.index)
    assert sorted(set(rows.labels.tolist())) == list(range(len(dataset.classes)))


@pytest.mark.parametrize("split", SPLITS)
def test_images_are_raw_bytes_of_three_channels(dataset: Dataset, split: str) -> None:
    for image in dataset.build(split).read([0, 1, 2]):
        assert image.dtype == torch.uint8 and image.shape[0] == 3
        if dataset.image_size:
            assert image.shape[1:] == (dataset.image_size, dataset.image_size)
        if dataset.channels == 1:
            assert torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])


def test_every_image_has_a_name_of_its_own(dataset: Dataset) -> None:
    index = np.concatenate([dataset.build(split).index for split in SPLITS])
    assert len({dataset.image_name(int(k)) for k in index}) == len(index)


@pytest.mark.parametrize("split", SPLITS)
def test_rows_read_in_any_order_are_the_same_rows(dataset: Dataset, split: str) -> None:
    rows = dataset.build(split)
    order = np.random.default_rng(0).permutation(len(rows))[:9]
    alone = [rows.read([int(k)])[0] for k in order]
    assert all(map(torch.equal, rows.read(order), alone))
    assert all(map(torch.equal, rows.read(order[::-1].copy()), alone[::-1]))


def test_what_chooses_cannot_open_test(data: str) -> None:
    sealed = base.load(data, sealed=("test",))
    with pytest.raises(SealedSplit, match="test split"):
        sealed.build("test")
    for split in ("train", "val"):
        np.testing.assert_array_equal(sealed.build(split).index, base.load(data).build(split).index)
    assert sealed.fingerprint == base.load(data).fingerprint


def test_an_unknown_split_says_what_there_is(data: str) -> None:
    for dataset in (base.load(data), base.load(data, sealed=("test",))):
        with pytest.raises(UnknownName, match=r"Did you mean 'train'.*test, train, val"):
            dataset.build("trian")


def test_an_unknown_data_set_says_the_near_ones() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'digits'"):
        base.load("digts")


def test_digits_are_split_60_15_25_in_every_class() -> None:
    dataset = base.load("digits")
    splits = [dataset.build(split) for split in SPLITS]
    assert sum(map(len, splits)) == 1797
    counts = np.array([np.bincount(rows.labels, minlength=10) for rows in splits])
    wanted = np.outer([0.60, 0.15, 0.25], counts.sum(0))
    assert np.abs(counts - wanted).max() <= 1
    assert [len(rows) for rows in splits] == [1078, 269, 450]


def test_digits_are_the_scans_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    for split in SPLITS:
        rows = base.load("digits").build(split)
        np.testing.assert_array_equal(rows.labels, labels[rows.index])
        images = torch.stack(stacked(rows.read(range(len(rows)))))[:, 0].numpy()
        np.testing.assert_allclose(images / 255 * 16, scans[rows.index].reshape(-1, 8, 8), atol=16 / 255)


def test_digits_take_no_folder() -> None:
    with pytest.raises(BadData, match="takes no folder"):
        base.load("digits:somewhere")


def test_carving_is_stratified_and_loses_nothing() -> None:
    labels = np.repeat([0, 1, 2], [10, 40, 7])
    parts = base.carve(labels, (0.5, 0.25, 0.25), salt="s")
    assert sorted(np.concatenate(parts).tolist()) == list(range(57))
    assert np.bincount(labels[parts[0]]).tolist() == [5, 20, 4]
    assert all((np.diff(part) > 0).all() for part in parts)
    other = base.carve(labels, (0.5, 0.25, 0.25), salt="t")
    assert any(a.tolist() != b.tolist() for a, b in zip(parts, other, strict=True))

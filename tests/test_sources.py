"""CIFAR, ImageNet, Hugging Face's datasets and webdataset: every layout, and what is said where one is wrong."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

import tiny_sources as tiny
from test_fine_grained import fails, truth
from twofold.datasets import _imagenet, base, wds
from twofold.datasets.base import SPLITS, Dataset
from twofold.errors import BadSetting, UnknownName

LAYOUTS: dict[str, Callable[[Path], str]] = {
    "cifar10": lambda folder: f"cifar10:{tiny.cifar10(folder)}?partial",
    "cifar10 binary": lambda folder: f"cifar10:{tiny.cifar10_binary(folder)}?partial",
    "cifar100": lambda folder: f"cifar100:{tiny.cifar100(folder)}?partial",
    "cifar100 binary": lambda folder: f"cifar100:{tiny.cifar100_binary(folder)}?partial",
    "imagenet": lambda folder: f"imagenet:{tiny.imagenet(folder)}?partial",
    "imagenet flat": lambda folder: f"imagenet:{tiny.imagenet(folder, flat=True)}?partial",
    "imagenet50": lambda folder: f"imagenet50:{tiny.imagenet(folder)}?partial",
    "hf parquet": lambda folder: f"hf:{tiny.hf(folder)}",
    "hf saved": lambda folder: f"hf:{tiny.hf_saved(folder)}",
}
TIMES = {"cifar10": 5, "cifar10 binary": 5, "imagenet": 3, "imagenet flat": 3, "imagenet50": 3}  # as many as COUNTS


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_image_is_in_its_split_with_its_own_label(tmp_path: Path, layout: str) -> None:
    dataset = base.load(LAYOUTS[layout](tmp_path))
    train, test = tiny.COUNTS["train"] * TIMES.get(layout, 1), tiny.COUNTS["test"]
    assert truth(dataset) == {
        "train": Counter(dict.fromkeys(range(3), train // 3)),
        "test": Counter(dict.fromkeys(range(3), test // 3)),
    }


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_both_layouts_of_cifar_are_the_same_data(tmp_path: Path, name: str) -> None:
    pickled = base.load(f"{name}:{getattr(tiny, name)(tmp_path / 'p')}?partial")
    binary = base.load(f"{name}:{getattr(tiny, f'{name}_binary')(tmp_path / 'b')}?partial")
    assert pickled.fingerprint == binary.fingerprint and pickled.classes == binary.classes
    inside = next((tmp_path / "p").iterdir())
    assert base.load(f"{name}:{inside}?partial").fingerprint == pickled.fingerprint


def test_a_batch_of_python_2_is_read(tmp_path: Path) -> None:
    """As published: arrays are rebuilt by numpy.core.multiarray._reconstruct from text in latin-1."""
    data = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    new = pickle.dumps({"data": data, "labels": [1, 0]}, protocol=2)
    assert b"numpy._core.multiarray" in new
    root = tiny.cifar10(tmp_path)
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(new.replace(b"numpy._core", b"numpy.core"))
    rows = base.load(f"cifar10:{root}?partial").build("test")
    assert rows.labels.tolist() == [1, 0] and torch.equal(
        rows.read([1])[0], torch.from_numpy(data[1].reshape(3, 32, 32))
    )


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


def test_no_pickle_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    batch = tiny.cifar10(tmp_path) / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(pickle.dumps({"data": Evil(), "labels": []}, protocol=2))
    assert "is not the published file" in fails(f"cifar10:{tmp_path}")
    assert f"asks for {os.system.__module__}.system" in fails(f"cifar10:{tmp_path}?partial")
    assert not (tmp_path / "executed").exists()


def test_wrong_files_of_cifar_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "data holds no cifar-10-batches-py/" in fails("cifar10") and "none is downloaded" in fails("cifar100")
    tiny.cifar10_binary(tmp_path)
    assert "'train': 150" in fails(f"cifar10:{tmp_path}")
    root = tmp_path / "cifar-10-batches-bin"
    (root / "test_batch.bin").write_bytes(b"12345")
    assert "test_batch.bin is not whole records of 3,073 bytes" in fails(f"cifar10:{tmp_path}?partial")
    (root / "test_batch.bin").write_bytes(tiny.records([(9, "test")], 1))
    assert "labels that are not 0 to 2" in fails(f"cifar10:{tmp_path}?partial")
    for content, says in (({"data": np.zeros((2, 9))}, "holds no fine_labels"), ([1], "holds no data")):
        (tiny.cifar100(tmp_path / says) / "cifar-100-python" / "test").write_bytes(pickle.dumps(content))
        assert says in fails(f"cifar100:{tmp_path / says}?partial")
    with pytest.raises(UnknownName, match="Did you mean 'partial'"):
        base.load(f"cifar10:{tmp_path}?partail")


def names(dataset: Dataset, split: str) -> list[str]:
    return [dataset.image_name(index).rpartition("/")[2] for index in dataset.build(split).index]


def test_imagenets_val_is_test_and_val_is_13_a_class_of_train(tmp_path: Path) -> None:
    whole = base.load(f"imagenet:{tiny.imagenet(tmp_path)}?partial")
    assert np.bincount(whole.build("val").labels).tolist() == [13] * 3
    assert all(name.startswith("ILSVRC2012_val_") for name in names(whole, "test"))
    fifty = base.load(f"imagenet50:{tmp_path}?partial")
    assert set(names(fifty, "val")) == set(names(whole, "val"))
    shutil.rmtree(tmp_path / "train" / tiny.WNIDS[0])
    shutil.rmtree(tmp_path / "val" / tiny.WNIDS[0])
    fewer = base.load(f"imagenet:{tmp_path}?partial")
    assert set(names(fewer, "val")) == {name for name in names(whole, "val") if not name.startswith(tiny.WNIDS[0])}


def test_a_flat_val_is_the_same_test_as_one_in_folders(tmp_path: Path) -> None:
    here = base.load(f"imagenet:{tiny.imagenet(tmp_path / 'x')}?partial").build("test")
    there = base.load(f"imagenet:{tiny.imagenet(tmp_path / 'y', flat=True)}?partial").build("test")
    assert here.labels.tolist() == there.labels.tolist() and here.index.tolist() == there.index.tolist()
    assert all(map(torch.equal, here.read(range(15)), there.read(range(15))))


def test_wrong_trees_of_imagenet_are_one_line(tmp_path: Path) -> None:
    assert "holds no train/ and no val/" in fails(f"imagenet:{tmp_path}") and "(empty)" in fails("imagenet:")
    data = f"imagenet:{tiny.imagenet(tmp_path, flat=True)}"
    message = fails(data)
    assert "3 classes instead of 1,000, 90 images in train instead of 1,281,167, 15 images in val instead of" in message
    assert "none of n02018207" not in message and "(none of n01770393, n01855672" in fails(f"imagenet50:{tmp_path}")
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").rename(tmp_path / "val" / "ILSVRC2012_val_00000099.JPEG")
    assert "has no class of ILSVRC2012_val_00000099.JPEG" in fails(f"{data}?partial")
    devkit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    savemat(devkit / "meta.mat", {"synsets": np.zeros(3)})
    assert "meta.mat lists no classes" in fails(f"{data}?partial")
    (devkit / _imagenet.TRUTH).unlink()
    assert f"there is no ILSVRC2012_devkit_t12/data/{_imagenet.TRUTH}" in fails(f"{data}?partial")
    shutil.rmtree(tmp_path / "train")
    (tmp_path / "train").mkdir()
    assert "train holds no folder of its classes (n01440764)" in fails(f"{data}?partial")
    assert "train holds no folder of its classes (n01601694," in fails(f"imagenet50:{tmp_path}?partial")


def test_a_class_of_imagenets_val_must_be_learned(tmp_path: Path) -> None:
    tiny.imagenet(tmp_path)
    shutil.rmtree(tmp_path / "train" / tiny.WNIDS[1])
    assert f"train has no image of {tiny.WNIDS[1]}" in fails(f"imagenet50:{tmp_path}?partial")


def test_classes_of_tables_keep_their_order(tmp_path: Path) -> None:
    assert base.load(f"hf:{tiny.hf(tmp_path / 'x')}").classes == tiny.HOUNDS
    here, there = base.load(f"hf:{tmp_path / 'x'}"), base.load(f"hf:{tiny.hf_saved(tmp_path / 'y')}")
    assert here.fingerprint == there.fingerprint


def test_columns_and_splits_are_found_or_named(tmp_path: Path) -> None:
    import datasets

    root = tiny.hf(tmp_path / "named", image="img", label="kind")
    assert truth(base.load(f"hf:{root}"))["test"] == Counter({0: 5, 1: 5, 2: 5})
    table = tiny.tables("train", label="fine_label")
    coarse = datasets.ClassLabel(names=["all"])
    table = table.add_column("coarse_label", [0] * len(table)).cast_column("coarse_label", coarse)
    table.to_parquet(tmp_path / "two" / "train.parquet")
    assert "the columns fine_label, coarse_label of labels" in fails(f"hf:{tmp_path / 'two'}")
    assert base.load(f"hf:{tmp_path / 'two'}?label=fine_label").classes == tiny.HOUNDS
    assert base.load(f"hf:{tmp_path / 'two'}?label=coarse_label").classes == ("all",)
    with pytest.raises(UnknownName, match="Did you mean 'fine_label'"):
        base.load(f"hf:{tmp_path / 'two'}?label=fine_labl")
    with pytest.raises(UnknownName, match="Did you mean 'label'"):
        base.load(f"hf:{tmp_path / 'two'}?labl=x")
    assert "Name another: ?image=COLUMN" in fails(f"hf:{tmp_path / 'two'}?label=fine_label&image=coarse_label")
    saved = {"train": tiny.tables("train"), "validation": tiny.tables("test")}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "validation")
    assert len(base.load(f"hf:{tmp_path / 'validation'}").build("val")) == 15
    as_test = base.load(f"hf:{tmp_path / 'validation'}?test=validation")
    assert truth(as_test)["test"] == Counter({0: 5, 1: 5, 2: 5})
    with pytest.raises(UnknownName, match="validation"):
        base.load(f"hf:{tmp_path / 'validation'}?test=tset")


def test_a_split_without_labels_is_left_out(tmp_path: Path) -> None:
    hidden = tiny.tables("test").map(lambda row: {**row, "label": -1})
    tiny.tables("train").to_parquet(tmp_path / "train.parquet")
    hidden.to_parquet(tmp_path / "test.parquet")
    dataset = base.load(f"hf:{tmp_path}")
    assert sum(len(dataset.build(split)) for split in SPLITS) == 30
    half = tiny.tables("test").map(lambda row, k: {**row, "label": -1 if k == 4 else 0}, with_indices=True)
    half.to_parquet(tmp_path / "test.parquet")
    assert "row 4 has no label" in fails(f"hf:{tmp_path}")


def test_names_and_numbers_may_be_labels(tmp_path: Path) -> None:
    import datasets

    for labels, classes in ((["x", "b"], ("b", "x")), ([10, 9], ("9", "10"))):
        cells = [{"bytes": tiny.encoded(0, "train", k), "path": None} for k in range(20)]
        kinds = datasets.Features(
            {"image": datasets.Image(), "label": datasets.Value("string" if "x" in labels else "int64")}
        )
        table = datasets.Dataset.from_dict({"image": cells, "label": labels * 10}, features=kinds)
        table.save_to_disk(tmp_path / classes[0])
        assert base.load(f"hf:{tmp_path / classes[0]}").classes == classes
    table.select_columns(["image"]).save_to_disk(tmp_path / "plain")
    assert base.load(f"hf:{tmp_path / 'plain'}").classes == ("images",)


def test_what_is_no_table_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is no folder here, and the hub gives no such data set" in fails("hf:nobody/nothing")
    assert "names nothing" in fails("hf:")
    assert "holds no .parquet and no .arrow files" in fails(f"hf:{tmp_path}")
    (tmp_path / "train.parquet").write_text("no table")
    assert "cannot be read" in fails(f"hf:{tmp_path}") and "is a file" in fails(f"hf:{tmp_path / 'train.parquet'}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadSetting, match=r"pip install 'twofold\[hf\]'"):
        base.load(f"hf:{tmp_path}")


def test_shards_give_their_images_from_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = base.load(f"wds:{tiny.wds(tmp_path)}")
    assert dataset.classes == ("1", "2", "10")
    rows = dataset.build("test")
    said = [2 - round(float(image[0].float().mean()) / 40) for image in rows.read(range(15))]
    assert said == rows.labels.tolist() and sum(len(dataset.build(s)) for s in ("train", "val")) == 60
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / "val").mkdir()
    shutil.copy(tmp_path / "shard-test-000000.tar", tmp_path / "val" / "shard-test-000000.tar")
    shutil.copy(tmp_path / "shard-test-000000.tar", tmp_path / "val" / "0.tar")
    more = base.load(f"wds:{tmp_path}/**/*.tar")
    assert len({more.image_name(k) for k in range(105)}) == 105 and len(more.build("val")) == 15
    shutil.rmtree(tmp_path / "val")
    monkeypatch.chdir(tmp_path)
    braces = base.load("wds:shard-{train,test}-{000000..000009}.tar")
    assert braces.fingerprint == dataset.fingerprint


def test_the_splits_of_shards_are_in_their_names() -> None:
    said = {
        "a/imagenet1k-validation-01.tar": "val",
        "val/0.tar": "val",
        "trainee/0.tar": "train",
        "x/test_3.tar": "test",
    }
    assert {path: wds.split_of(Path(path)) for path in said} == said
    assert wds.unfolded("a{08..10}b{x,y}") == ["a08bx", "a08by", "a09bx", "a09by", "a10bx", "a10by"]


def test_wrong_shards_are_one_line(tmp_path: Path) -> None:
    assert "no such file" in fails(f"wds:{tmp_path}/*.tar")
    data = f"wds:{tiny.wds(tmp_path, classes=('ant', 'bee', 'cat'))}"
    assert base.load(data).classes == ("ant", "bee", "cat")
    assert "is of test only" in fails(f"wds:{tmp_path}/*test*.tar")
    shard = tmp_path / "shard-train-000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2 + 700])
    assert "shard-train-000001.tar cannot be read as a tar" in fails(data)
    shard.write_bytes(gzip.compress(whole))
    assert "must be uncompressed first" in fails(data)
    shard.write_bytes(whole)
    with tarfile.open(shard, "a") as tar:
        tiny.add(tar, "train1/9999.png", tiny.encoded(0, "train", 0))
    assert "9999.png has no .cls beside it" in fails(data)
    with tarfile.open(tmp_path / "none.tar", "w") as tar:
        tiny.add(tar, "a.txt", b"nothing")
    assert "hold no images" in fails(f"wds:{tmp_path}/none.tar")

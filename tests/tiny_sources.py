"""Small data sets in the exact layouts of CIFAR, ImageNet, Hugging Face's datasets and webdataset.

As in `tiny_fine_grained`, a picture says what it is: its red tells the class, its green the split.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from tiny_fine_grained import COUNTS, SHADES, paint, plan
from twofold.datasets.imagenet50 import WNIDS

CIFAR10 = ("airplane", "automobile", "bird")
CIFAR100 = ("apple", "aquarium_fish", "baby")


def pixels(label: int, split: str, number: int, side: int = 32) -> np.ndarray[Any, Any]:
    """uint8 [side, side, 3] of the colours of `paint`."""
    return np.full((side, side, 3), (40 * label, SHADES[split], number % 50 * 5), dtype=np.uint8)


def encoded(label: int, split: str, number: int) -> bytes:
    """The same as the bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels(label, split, number, side=9 + number % 2)).save(file, "png")
    return file.getvalue()


def planes(rows: list[tuple[int, str]]) -> np.ndarray[Any, Any]:
    """uint8 [N, 3072], red, green and blue one after the other."""
    return np.stack([pixels(k, split, number).transpose(2, 0, 1).ravel() for number, (k, split) in enumerate(rows)])


def batches(folder: Path, files: Mapping[str, str], key: str, names: tuple[str, tuple[str, ...]]) -> Path:
    """Python's batches: `files` says the split of each file; `names` is the file and content of the class names."""
    folder.mkdir(parents=True)
    for file, split in files.items():
        rows = plan(3, {split: COUNTS[split]})
        content = {"data": planes(rows), key: [k for k, _ in rows], "batch_label": file}
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
    meta, classes = names
    key = "label_names" if key == "labels" else "fine_label_names"
    (folder / meta).write_bytes(pickle.dumps({key: list(classes)}, protocol=2))
    return folder.parent


def cifar10(folder: Path) -> Path:
    files = {**{f"data_batch_{k}": "train" for k in range(1, 6)}, "test_batch": "test"}
    return batches(folder / "cifar-10-batches-py", files, "labels", ("batches.meta", CIFAR10))


def cifar100(folder: Path) -> Path:
    files = {"train": "train", "test": "test"}
    return batches(folder / "cifar-100-python", files, "fine_labels", ("meta", CIFAR100))


def records(rows: list[tuple[int, str]], before: int) -> bytes:
    """The binary files: `before` bytes of labels, the last the one that counts, then pixels."""
    labels = np.zeros((len(rows), before), dtype=np.uint8)
    labels[:, -1] = [k for k, _ in rows]
    return np.hstack([labels, planes(rows)]).tobytes()


def cifar10_binary(folder: Path) -> Path:
    root = folder / "cifar-10-batches-bin"
    root.mkdir(parents=True)
    for k in range(1, 6):
        (root / f"data_batch_{k}.bin").write_bytes(records(plan(3, {"train": COUNTS["train"]}), 1))
    (root / "test_batch.bin").write_bytes(records(plan(3, {"test": COUNTS["test"]}), 1))
    (root / "batches.meta.txt").write_text("\n".join(CIFAR10) + "\n\n")
    return folder


def cifar100_binary(folder: Path) -> Path:
    root = folder / "cifar-100-binary"
    root.mkdir(parents=True)
    for split in COUNTS:
        (root / f"{split}.bin").write_bytes(records(plan(3, {split: COUNTS[split]}), 2))
    (root / "fine_label_names.txt").write_text("\n".join(CIFAR100) + "\n")
    return folder


def imagenet(folder: Path, *, flat: bool = False, counts: Mapping[str, int] = {"train": 90, "test": 15}) -> Path:
    """The first three classes of ImageNet-50; the flat val with its devkit, whose numbers are in no order."""
    wnids = WNIDS[:3]
    ids = {wnid: 900 - 7 * k for k, wnid in enumerate(wnids)}
    truth = []
    for number, (k, split) in enumerate(plan(3, counts)):
        if split == "train":
            paint(folder / "train" / wnids[k] / f"{wnids[k]}_{number}.JPEG", k, split, number)
            continue
        truth.append(ids[wnids[k]])
        name = f"ILSVRC2012_val_{len(truth):08d}.JPEG"
        paint(folder / "val" / name if flat else folder / "val" / wnids[k] / name, k, split, number)
    if flat:
        devkit = folder / "ILSVRC2012_devkit_t12" / "data"
        devkit.mkdir(parents=True)
        synsets = np.empty(
            (len(ids) + 1, 1), dtype=[(n, object) for n in ("ILSVRC2012_ID", "WNID", "words", "num_children")]
        )
        for row, (wnid, number) in enumerate([*ids.items(), ("n00001740", 1001)]):
            synsets[row, 0] = (number, wnid, f"words of {wnid}", 0)
        savemat(devkit / "meta.mat", {"synsets": synsets})
        (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(map(str, truth)) + "\n")
    return folder


HOUNDS = ("cat", "ant", "bee")  # not in alphabetical order, as class labels may be


def tables(split: str, *, label: str = "label", image: str = "image") -> Any:
    """A table of Hugging Face's datasets."""
    import datasets

    rows = plan(3, {split: COUNTS[split]})
    kinds = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=list(HOUNDS))})
    cells = [{"bytes": encoded(k, split, number), "path": None} for number, (k, _) in enumerate(rows)]
    return datasets.Dataset.from_dict({image: cells, label: [k for k, _ in rows]}, features=kinds)


def hf(folder: Path, **columns: str) -> Path:
    """A folder of parquet files as the hub has them."""
    for split in COUNTS:
        tables(split, **columns).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def hf_saved(folder: Path, **columns: str) -> Path:
    """A folder of `save_to_disk`."""
    import datasets

    datasets.DatasetDict({split: tables(split, **columns) for split in COUNTS}).save_to_disk(folder / "saved")
    return folder / "saved"


def wds(folder: Path, classes: tuple[str, ...] = ("10", "2", "1")) -> str:
    """Two tars of train and one of test; a class is a number here."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in COUNTS:
        for part in range(2 if split == "train" else 1):
            with tarfile.open(folder / f"shard-{split}-{part:06d}.tar", "w") as tar:
                for number, (k, _) in enumerate(plan(3, {split: COUNTS[split]})):
                    for suffix, content in (("cls", classes[k].encode()), ("png", encoded(k, split, number))):
                        add(tar, f"{split}{part}/{number:04d}.{suffix}", content)
    return f"{folder}/*.tar"


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def bomb(side: int) -> bytes:
    """A PNG of some bytes that unfolds to side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")

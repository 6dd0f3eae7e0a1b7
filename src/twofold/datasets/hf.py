"""Hugging Face's datasets: a hub id, or a folder of parquet or arrow files or of `save_to_disk`; needs twofold[hf].

hf:DIR   hf:OWNER/NAME   hf:DIR?image=img&label=fine_label&config=small&test=validation
The columns of images and labels are found where there is one of each, or named. Splits are those of the data set
(validation is val); `val=NAME` and `test=NAME` name others, and those that are missing are carved from train. A split
without labels (all of them -1) is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, final

from twofold.datasets._files import UNLABELLED, Files
from twofold.datasets.base import SPLITS
from twofold.errors import BadData, BadSetting, unknown

ALSO = {"train": ("train", "training"), "val": ("val", "validation", "valid", "dev"), "test": ("test",)}
LABELS = ("label", "labels", "class", "category", "fine_label")
WORDS = ("image", "label", "config", *SPLITS)
KINDS = {".parquet": "parquet", ".arrow": "arrow"}
INSTALL = "Install it: pip install 'twofold[hf]'."


class Column(NamedTuple):
    """One split: its name, the table of its images, the bytes of each, the class of each."""

    split: str
    table: Any
    sizes: list[int]
    labels: list[str]


@final
@dataclass(frozen=True)
class InTables:
    """Encoded images in the cells of tables."""

    columns: Sequence[Column]
    image: str

    @cached_property
    def names(self) -> Sequence[str]:
        """Split and row."""
        return [f"{column.split}/{row}" for column in self.columns for row in range(len(column.labels))]

    def sizes(self) -> Sequence[int]:
        """Bytes of each image."""
        return [size for column in self.columns for size in column.sizes]

    def open(self, position: int) -> BytesIO | Path:
        """The bytes of one image, or the path where a cell holds no more than that."""
        column, row = self._at(position)
        cell = column.table[row][self.image]
        return BytesIO(cell["bytes"]) if cell["bytes"] is not None else Path(cell["path"])

    def where(self, position: int) -> str:
        """Split, row and column."""
        column, row = self._at(position)
        return f"{column.split} row {row}, column {self.image}"

    def _at(self, position: int) -> tuple[Column, int]:
        for column in self.columns:
            if position < len(column.labels):
                return column, position
            position -= len(column.labels)
        raise IndexError(position)


def build(argument: str) -> Files:
    """`hf:ID_OR_DIR[?image=COLUMN][&label=COLUMN][&config=NAME][&train=SPLIT][&val=SPLIT][&test=SPLIT]`.

    Images in the order of train, val and test, and of their rows.
    """
    data, (place, _, words) = f"hf:{argument}", argument.partition("?")
    asked = _asked(words)
    tables = _named(data, _tables(data, place, asked.get("config")), asked)
    image, label = _columns(data, tables["train"].features, asked)
    read = [_column(data, split, table, image, label) for split, table in tables.items()]
    columns = [column for column in read if column.labels]
    labels = [name for column in columns for name in column.labels]
    splits = [column.split for column in columns for _ in column.labels]
    if "train" not in splits:
        raise BadData(f"{data}: its train split has no images with labels. Name another: ?train=SPLIT.")
    own = [column.split for column in columns]
    classes = _classes(tables["train"].features, label, labels)
    return Files(data, InTables(columns, image), labels, splits, own=own, salt="hf", classes=classes)


def _asked(words: str) -> dict[str, str]:
    asked = {}
    for word in filter(None, words.split("&")):
        name, _, value = word.partition("=")
        if name not in WORDS or not value:
            raise unknown("setting of hf", name, WORDS, "Write hf:ID_OR_DIR?image=COLUMN&label=COLUMN.")
        asked[name] = value
    return asked


def _tables(data: str, place: str, config: str | None) -> Mapping[str, Any]:
    """All splits, by the names that they have there."""
    if not place:
        raise BadData("hf: names nothing. Give hf:DIR of parquet or arrow files, or hf:OWNER/NAME of the hub.")
    try:
        import datasets
    except ImportError as error:
        raise BadSetting(f"{data} is read by Hugging Face's datasets, which is not installed. {INSTALL}") from error
    # What goes wrong is said once, in one line.
    datasets.utils.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    folder = Path(place)
    try:
        found = _local(datasets, folder, config) if folder.exists() else datasets.load_dataset(place, config)
    except BadData:
        raise
    except Exception as error:  # the library raises what its readers and the network raise
        where = "cannot be read" if folder.exists() else "is no folder here, and the hub gives no such data set"
        told = " ".join(str(error).split()) or type(error).__name__
        raise BadData(f"{data} {where} ({told[:200]}). Give hf:DIR of parquet or arrow files, or an id.") from error
    return found if isinstance(found, Mapping) else {"train": found}


def _local(datasets: Any, folder: Path, config: str | None) -> Any:
    if not folder.is_dir():
        raise BadData(f"hf:{folder} is a file. Give the folder that it lies in.")
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return datasets.load_from_disk(str(folder))
    for suffix, kind in KINDS.items():
        files = _by_split(sorted((folder / config if config else folder).rglob(f"*{suffix}")))
        if files:
            return datasets.load_dataset(kind, data_files=files)
    raise BadData(
        f"hf:{folder} holds no {' and no '.join(KINDS)} files and is not of `save_to_disk`. Give one that does."
    )


def _by_split(files: Sequence[Path]) -> dict[str, list[str]]:
    """Files by the split that their names, or their folders' names, begin with; train where they say none."""
    found: dict[str, list[str]] = {}
    for path in files:
        said = [
            part.lower().replace("_", "-").partition("-")[0].partition(".")[0] for part in (path.name, path.parent.name)
        ]
        known = [name for name in said if any(name in names for names in ALSO.values())]
        found.setdefault(known[0] if known else "train", []).append(str(path))
    return found


def _named(data: str, tables: Mapping[str, Any], asked: Mapping[str, str]) -> dict[str, Any]:
    """Our splits from theirs."""
    taken = {value for name, value in asked.items() if name in SPLITS}
    found = {}
    for split in SPLITS:
        names = [asked[split]] if split in asked else [n for n in ALSO[split] if n in tables and n not in taken]
        for name in names[:1]:
            if name not in tables:
                raise unknown(f"split of {data}", name, tables)
            found[split] = tables[name]
    if "train" not in found:
        raise BadData(f"{data} has the splits {', '.join(tables)} and no train. Name one: ?train=SPLIT.")
    return found


def _columns(data: str, features: Mapping[str, Any], asked: Mapping[str, str]) -> tuple[str, str | None]:
    """The columns of images and of labels; no labels where there is no other column than the images."""
    images = [name for name, kind in features.items() if type(kind).__name__ == "Image"]
    classes = [name for name, kind in features.items() if type(kind).__name__ == "ClassLabel"]
    classes = classes or [name for name in LABELS if name in features][:1]
    image = _one(data, "image", images, features, asked)
    if "label" not in asked and len(features) == 1:
        return image, None
    return image, _one(data, "label", classes, features, asked)


def _one(data: str, kind: str, found: Sequence[str], features: Mapping[str, Any], asked: Mapping[str, str]) -> str:
    if kind in asked:
        if asked[kind] not in features:
            raise unknown(f"column of {data}", asked[kind], features)
        return asked[kind]
    if len(found) != 1:
        what = f"the columns {', '.join(found)} of {kind}s" if found else f"no column of {kind}s"
        raise BadData(f"{data} has {what} among {', '.join(features)}. Name one: ?{kind}=COLUMN.")
    return found[0]


def _column(data: str, split: str, table: Any, image: str, label: str | None) -> Column:
    """What is known of a split without decoding; without labels it has no rows."""
    from datasets import Image
    from pyarrow import compute

    try:
        images = table.select_columns([image]).cast_column(image, Image(decode=False))
    except Exception as error:
        raise BadData(f"{data}: its column {image} holds no images. Name another: ?image=COLUMN.") from error
    labels = [UNLABELLED] * len(table) if label is None else _label_names(data, table, label)
    sizes: list[int] = []
    for batch in images.with_format("arrow").iter(batch_size=1000):
        cells = batch[image].combine_chunks()
        known = compute.binary_length(compute.struct_field(cells, "bytes")).to_pylist()
        paths = compute.struct_field(cells, "path").to_pylist()
        sizes += [Path(path).stat().st_size if size is None else size for size, path in zip(known, paths, strict=True)]
    return Column(split, images, sizes, labels)


def _label_names(data: str, table: Any, label: str) -> list[str]:
    """The class of each row; none where no row has one."""
    values, kind = table[label], table.features[label]
    values = list(values)
    if all(value in (None, -1) for value in values):
        return []
    if any(value in (None, -1) for value in values):
        raise BadData(f"{data}: row {[v in (None, -1) for v in values].index(True)} has no {label}, others have one.")
    if hasattr(kind, "int2str"):
        return [str(name) for name in kind.int2str(values)]
    if not all(isinstance(value, int | str) for value in values):
        raise BadData(f"{data}: its column {label} holds no numbers or names of classes. Name another: ?label=COLUMN.")
    return [str(value) for value in values]


def _classes(features: Mapping[str, Any], label: str | None, labels: Sequence[str]) -> list[str]:
    """Class names in the order that the data set gives them; of numbers by size."""
    held = set(labels)
    named = getattr(features[label], "names", None) if label else None
    if named:
        return [name for name in named if name in held]
    return sorted(held, key=int) if all(map(str.isdecimal, held)) else sorted(held)

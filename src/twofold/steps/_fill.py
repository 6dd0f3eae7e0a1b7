"""The main path: images -> raw bytes -> preprocess -> noise of that image -> features -> pool -> store.

Shared by the steps that need feature tables. One forward pass a noise step for all blocks and pools asked for,
stopped after the deepest block.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twofold import noise, pooling, runs, store
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset, Rows
from twofold.errors import BadSetting
from twofold.records import Cell, number_text
from twofold.settings import Settings, setting
from twofold.steps import _batching, _cells, _sharing, _views
from twofold.steps._ahead import ahead
from twofold.steps._sharing import Work
from twofold.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

log = logging.getLogger("twofold")


@dataclass(frozen=True, kw_only=True)
class Reading(Settings):
    """How features are read, apart from where: the settings that extract, select and probe share."""

    draws: int = setting(1, help="noise samples an image, averaged", least=1, most=_views.DRAWS)
    label: int | None = setting(
        None, help="class number told to a class-conditional model; none: no class", least=0, most=10**9
    )
    dtype: str = setting("float16", help="number format in the store", choices=("float16", "float32"))
    batch: int | None = setting(
        None, none="auto", help="images a forward pass; auto: what memory allows", least=1, most=10**6
    )
    on_error: str = setting("stop", help=datasets.ON_ERROR_HELP, choices=datasets.ON_ERROR, identity=False)
    seed: int = setting(0, help="seed of the noise, and of shots", least=0, most=2**63 - 1)
    workers: int = setting(1, help="processes that fill the store together", least=1, most=10**4, identity=False)
    ray: str | None = setting(
        None, help="Ray cluster that fills the store: its address, or local for one on this machine", identity=False
    )
    device: str | None = setting(None, help="cpu, cuda, cuda:N or mps; none: a GPU where there is one", identity=False)
    precision: str = setting("auto", help="number format of the network", choices=backbones.PRECISIONS)
    compile: bool = setting(False, help="compile the network's inner blocks; pays on a GPU", identity=False)

    @property
    def alone(self) -> Reading:
        """These settings without those of the verb that has them."""
        return Reading(**{f.name: getattr(self, f.name) for f in fields(Reading)})

    def load(self, model: str) -> Backbone:
        """The backbone of a MODEL string, where and as these settings say."""
        backbone = backbones.load(
            model, device=self.device or runs.own_gpu(), precision=self.precision, compile=self.compile
        )
        self.check_label(backbone)
        return backbone

    def check_label(self, backbone: Backbone) -> None:
        """Raise `BadSetting` where the model knows no such class."""
        classes = backbone.classes if isinstance(backbone, DiffusionBackbone) else 0
        if self.label is not None and not classes:
            raise BadSetting(f"{backbone.name} knows no classes, so a label means nothing to it. Leave --label out.")
        if self.label is not None and self.label >= classes:
            raise BadSetting(f"--label of {backbone.name} must be 0 to {classes - 1}, not {self.label}.")


def open_store(
    where: str | Path, backbone: Backbone, dataset: Dataset, reading: Reading, *, sealed: tuple[str, ...] = ()
) -> Store:
    """The store in a folder or at an address for this backbone, data and reading; see `store.make`."""
    key = key_of(backbone, reading) | {"data": dataset.fingerprint}
    about = {"model": backbone.name, "data": dataset.name, "classes": list(dataset.classes), **dataset.provenance}
    return store.make(where, key, about, sealed=sealed)


def key_of(backbone: Backbone, reading: Reading) -> dict[str, Any]:
    """What a store's key says of how its images were read."""
    return {
        "backbone": backbone.identity,
        "preprocessing": backbone.preprocessing,
        "precision": str(backbone.placement.dtype).removeprefix("torch."),
        "seed": reading.seed,
        "draws": reading.draws,
        "label": reading.label,
        "dtype": reading.dtype,
    }


def fill(
    target: Store,
    backbone: Backbone,
    dataset: Dataset,
    splits: Iterable[str],
    wanted: Sequence[Cell],
    reading: Reading,
) -> int:
    """Compute what the store lacks of `wanted`; give the number of forward passes (images x steps) made here.

    Three things happen at once: images are decoded, prepared and given their noise ahead of the forward pass, and
    finished chunks are written behind it. Memory does not grow with the number of images. Other processes may fill
    the same store; each takes what nobody has taken, and comes back when nothing is missing.
    """
    works = plan(target, backbone, dataset, splits, wanted, reading.seed)
    if not works:
        return 0
    reading = replace(reading, batch=batch(backbone, wanted, reading))
    return work_off(target, backbone, works, reading, f"features of {dataset.name}")


def work_off(target: Store, backbone: Backbone, works: Sequence[Work], reading: Reading, title: str) -> int:
    """Do those of the works that nobody else does, in batches of `reading.batch`; see `fill`."""
    size, made = reading.batch or 1, 0
    bar = runs.progress(sum(len(work.rows) for work in works), title)
    with bar, target.claims() as claims, ThreadPoolExecutor(1) as writer:
        writing: Future[None] | None = None
        shared = _sharing.share(works, claims, partial(_lacking, target), bar)
        several = len({work.t for work in works}) > 1
        batches = ahead(_batches(backbone, shared, reading, size, keep=several))
        for first in batches:
            # Others may wait for this work, so that it ends with its own last batch and not with the next one's first.
            following = islice(batches, (len(first.work.rows) - 1) // size)
            found = _compute(backbone, first.work, chain([first], following), reading, bar)
            if writing is not None:
                writing.result()
            writing = writer.submit(_write, target, first.work, found)
            made += len(first.work.rows)
        if writing is not None:
            writing.result()
    return made


def batch(backbone: Backbone, wanted: Sequence[Cell], reading: Reading) -> int:
    """Images a forward pass: as asked, or what suits this machine, shared by all who work on it."""
    deepest = max(cell.tap.block for cell in wanted)
    size = reading.batch or _batching.choose(backbone, deepest, workers=reading.workers)
    log.debug("%s images a forward pass", size)
    return size


def read(backbone: Backbone, rows: Rows, cell: Cell, reading: Reading) -> NDArray[np.float32]:
    """The features of all rows in memory, without a store: float32 [N, D] or [N, C, h, w]."""
    work = Work("", 0, np.arange(len(rows)), rows, cell.tap.t, (cell,))
    size = batch(backbone, [cell], reading)
    with runs.progress(len(rows), "features") as bar:
        batches = ahead(_batches(backbone, [work], reading, size, keep=False))
        found = _compute(backbone, work, batches, reading, bar)
    features: NDArray[np.float32] = found[0][1]
    return features


@dataclass(frozen=True, eq=False)
class _Batch:
    """Prepared images [B, C, h, w] of some of a chunk's rows, and the noise of each draw (None: no noise)."""

    work: Work
    x: Tensor
    noises: list[Tensor | None]


def plan(
    target: Store, backbone: Backbone, dataset: Dataset, splits: Iterable[str], wanted: Sequence[Cell], seed: int
) -> list[Work]:
    """The chunks and steps that are not in the store yet; makes the arrays for them."""
    sources = {split: _views.rows(dataset, split, seed) for split in splits}
    return [work for split, rows in sources.items() for work in _plan(target, backbone, rows, split, wanted)]


def _plan(target: Store, backbone: Backbone, rows: Rows, split: str, wanted: Sequence[Cell]) -> list[Work]:
    target.begin_split(split, rows.labels, rows.index)
    for cell in wanted:
        target.begin_cell(split, cell, _cells.shape(backbone, cell), _about(backbone, cell))
    lacking = {cell: set(target.missing(split, cell)) for cell in wanted}
    found = []
    for number, positions in enumerate(target.chunk_rows(split)):
        for t in dict.fromkeys(cell.tap.t for cell in wanted):
            todo = tuple(cell for cell in wanted if cell.tap.t == t and number in lacking[cell])
            if todo:
                found.append(Work(split, number, positions, rows, t, todo))
    return found


def _about(backbone: Backbone, cell: Cell) -> dict[str, Any]:
    block = backbone.block(cell.tap.block)
    return {
        "block": block.number, "name": block.name, "t": cell.tap.t, "sigma": backbone.sigma(cell.tap.t),
        "pool": cell.pool, "share": block.share,
    }  # fmt: skip


def _lacking(target: Store, work: Work) -> bool:
    """Whether the store lacks any of a work's cells now."""
    return not all(target.has(work.split, cell, work.number) for cell in work.cells)


def _batches(backbone: Backbone, works: Iterable[Work], reading: Reading, size: int, *, keep: bool) -> Iterator[_Batch]:
    """Everything that a forward pass needs, in order; `keep` what is prepared for one step for the chunk's others."""
    import torch

    prepared: dict[int, Tensor] = {}
    chunk = ""
    for work in works:
        if work.chunk != chunk:
            prepared.clear()
            chunk = work.chunk
        for start in range(0, len(work.rows), size):
            positions = work.rows[start : start + size]
            x = prepared.get(start)
            if x is None:
                x = backbone.preprocess(work.source.read(positions))
            if keep:
                prepared[start] = x
            noises: list[Tensor | None] = [None]
            if work.t is not None:
                index, shape = work.source.index[positions], x.shape[1:]
                first = _views.first_draw(work.split)
                own = (noise.normal(reading.seed, index, shape, draw=first + draw) for draw in range(reading.draws))
                noises = [torch.from_numpy(values) for values in own]
            yield _Batch(work, x, noises)


def _compute(
    backbone: Backbone, work: Work, batches: Iterable[_Batch], reading: Reading, bar: Any
) -> list[tuple[Cell, Any]]:
    """The features of one chunk at one step, a float32 array [rows, ...] for each cell."""
    import torch

    blocks = sorted({cell.tap.block for cell in work.cells})
    parts: dict[Cell, list[Tensor]] = {cell: [] for cell in work.cells}
    for batch in batches:
        for cell, values in _pooled(backbone, batch, blocks, reading).items():
            parts[cell].append(values.cpu())
        bar.advance(len(batch.x), "" if work.t is None else f"t={number_text(work.t)}")
    return [(cell, torch.cat(found).numpy()) for cell, found in parts.items()]


def _pooled(backbone: Backbone, batch: _Batch, blocks: list[int], reading: Reading) -> dict[Cell, Tensor]:
    """Pooled features of one batch, averaged over draws."""
    import torch

    labels = None if reading.label is None else torch.full((len(batch.x),), reading.label)
    total: dict[Cell, Tensor] = {}
    for draw, own in enumerate(batch.noises):
        maps = backbone.features(batch.x, batch.work.t, blocks, own, labels)
        for cell in batch.work.cells:
            values = pooling.pool(maps[cell.tap.block], cell.pool)
            total[cell] = values if draw == 0 else total[cell] + values
    return {cell: values / len(batch.noises) for cell, values in total.items()}


def _write(target: Store, work: Work, found: list[tuple[Cell, Any]]) -> None:
    for cell, values in found:
        target.write_chunk(work.split, cell, work.number, values)

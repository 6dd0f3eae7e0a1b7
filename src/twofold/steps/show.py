"""What does a network see? Its blocks as colours over noise, an image's neighbours, or classes on a plane."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twofold import noise, store
from twofold.backbones import base as backbones
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.errors import BadData, BadSetting
from twofold.plots import insides
from twofold.records import Cell, Outcome, number_text
from twofold.settings import Settings, setting
from twofold.steps import _cells
from twofold.steps._fill import Reading

SIGMAS = (0.05, 0.31, 0.8, 2.0)  # by default: hardly noised to hardly seen
SHOWN_BLOCKS = 4
SUFFIXES = (".png", ".svg")
LEAST_POINTS = 4
MOST_IMAGES = 24  # rows of pictures that a figure has room for


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold show`."""

    model: str = setting(help="network to look into; see --model of extract", positional=True)
    out: Path = setting(help="picture to write: .png or .svg")
    image: tuple[Path, ...] = setting((), help="image files, and folders of them", positional=True)
    blocks: tuple[str, ...] | None = setting(
        None, none="four of them", help="block numbers or names, or all; see twofold blocks", alone="all"
    )
    t: tuple[float, ...] | None = setting(None, help="noise steps in the model's own unit; none: four sigmas")
    sigma: tuple[float, ...] | None = setting(None, help="noise-to-signal ratios instead of --t")
    neighbours: str | None = setting(
        None, help="store of this model: show the stored images that are most like each image instead"
    )
    classes: str | None = setting(
        None, help="store of this model: lay its images out on a plane by their features instead; needs no image"
    )
    cell: str | None = setting(None, none="the store's only one", help="which features of the store, such as b5_t30_p2")
    split: str = setting("val", help="split of the store", choices=datasets.SPLITS)
    num: int = setting(6, help="neighbours of each image", least=1, most=50)
    layout: str = setting("tsne", help="how points are laid out; umap needs its library", choices=("tsne", "umap"))
    seed: int = setting(0, help="seed of noise and layout", least=0, most=2**62)
    device: str | None = setting(None, help="cpu, cuda, cuda:N or mps; none: a GPU where there is one", identity=False)
    precision: str = setting("auto", help="number format of the network", choices=backbones.PRECISIONS)


def run(config: Config) -> Outcome:
    """Write one picture."""
    from twofold.steps import _images, _seen

    _check(config)
    _seen.check_layout(config.layout)
    paths = _images.paths(config.image) if config.image else []
    if len(paths) > MOST_IMAGES:
        raise BadSetting(f"show draws {MOST_IMAGES} images at most, and IMAGE holds {len(paths):,}. Give fewer.")
    if config.classes:
        told = _classes(config, config.classes)
    elif config.neighbours:
        told = _neighbours(config, config.neighbours, paths)
    else:
        told = _maps(config, paths)
    return Outcome({"picture": str(config.out), **told}, f"{config.out}: {told['shown']}.")


def _check(config: Config) -> None:
    """Refuse before any work what has no meaning, or would replace a file of others."""
    if config.out.suffix not in SUFFIXES:
        raise BadSetting(f"show --out {config.out} must end in {' or '.join(SUFFIXES)}.")
    if config.out.is_dir() or (config.out.exists() and not insides.is_ours(config.out)):
        raise BadSetting(f"{config.out} is there and is no picture of `twofold show`. Give --out another file.")
    if config.neighbours and config.classes:
        raise BadSetting("show takes --neighbours or --classes, not both. Give one of them.")
    if config.classes and config.image:
        raise BadSetting("show --classes draws the images of its store. Leave IMAGE out, or give --neighbours.")
    if not config.classes and not config.image:
        raise BadSetting("show needs IMAGE: one or several image files after MODEL, or --classes STORE without any.")
    if config.cell and not (config.neighbours or config.classes):
        raise BadSetting("show --cell is of a store. Give --neighbours or --classes, or --blocks and --t.")
    if (config.neighbours or config.classes) and (config.blocks or config.t or config.sigma):
        raise BadSetting("A store says where and at which noise it was read. Leave --blocks, --t and --sigma out.")


def _maps(config: Config, paths: list[Path]) -> dict[str, Any]:
    """Blocks as colours, a row for each image and step."""
    from twofold.steps import _images, _seen

    # First without weights, whose reading may take minutes.
    shape = backbones.load(config.model, weightless=True)
    blocks = _blocks(shape, config.blocks)
    steps = _steps(shape, config)
    backbone = backbones.load(config.model, device=config.device, precision=config.precision)
    pictures = [_images.picture(path) for path in paths]
    numbers = [_images.own_number(p) for p in pictures]
    seen = _seen.glances(backbone, pictures, numbers, steps, blocks, config.seed)
    columns, coloured = ["image" if steps == [None] else "noised image"], []
    for number in blocks:
        shown, share = _seen.colours(seen, number)
        coloured.append(shown)
        block = backbone.block(number)
        columns.append(f"{number} {block.name[:18]}\n{block.size}×{block.size}, {100 * share:.0f} %")
    rows = [
        (_row_name(paths[k], t, backbone, single=len(paths) == 1), [glance.entering, *(c[k][j] for c in coloured)])
        for k, line in enumerate(seen)
        for j, (t, glance) in enumerate(zip(steps, line, strict=True))
    ]
    title = "three principal components of each block, and their share of its variance"
    insides.block_maps(rows, columns, title, config.out)
    told = f"{len(blocks)} blocks at {len(steps)} noise steps for {len(paths)} images"
    return {"shown": told, "blocks": blocks, "t": steps, "images": [str(p) for p in paths]}


def _blocks(backbone: Backbone, asked: tuple[str, ...] | None) -> list[int]:
    """Numbers of the blocks to show, along the forward pass; by default some, as far apart as can be."""
    if asked is not None and asked != ("all",):
        return sorted({backbone.block(b).number for b in asked})
    numbers = [block.number for block in backbone.blocks]
    if asked is None:
        places = np.linspace(0, len(numbers) - 1, SHOWN_BLOCKS + 2)[1:-1].round().astype(int).tolist()
        numbers = sorted({numbers[k] for k in places})
    return numbers


def _steps(backbone: Backbone, config: Config) -> list[float | None]:
    default = SIGMAS if isinstance(backbone, DiffusionBackbone) and config.t is None else None
    return _cells.steps(backbone, config.t, config.sigma or default)


def _row_name(path: Path, t: float | None, backbone: Backbone, *, single: bool) -> str:
    name = "" if single else f"{path.stem[-14:]}\n"
    return name.strip() if t is None else f"{name}t = {number_text(t)} (σ {backbone.sigma(t):.2g})"


def _neighbours(config: Config, where: str, paths: list[Path]) -> dict[str, Any]:
    """Images and those that are most like them in a store."""
    from twofold.steps import _images, _remembered, _seen

    opened = store.load(where)
    cell = _seen.cell_of(opened, config.split, config.cell)
    dataset = _seen.dataset_of(opened)
    key = opened.key
    reading = Reading(
        draws=key["draws"], label=key["label"], seed=key["seed"], dtype=key["dtype"], device=config.device,
        precision=config.precision,
    )  # fmt: skip
    backbone = reading.load(config.model)
    _seen.check_same(opened, backbone)
    rows, _ = _remembered.features(_images.listed(paths), backbone, cell, reading)
    near = _seen.nearest(rows, opened.read(config.split, cell).x, dataset, config.split, config.num)
    shown = [
        (_images.picture(path).permute(1, 2, 0).numpy(), path.name, own) for path, own in zip(paths, near, strict=True)
    ]
    title = f"nearest {config.split} images of {_short(dataset.name)} by {_where(backbone, cell)}"
    insides.neighbours(shown, f"{title}\n(class, cosine similarity)", config.out)
    told = [
        {"image": str(path), "near": [{"label": n.label, "similarity": round(n.similarity, 4)} for n in own]}
        for path, own in zip(paths, near, strict=True)
    ]
    return {"shown": f"{config.num} neighbours of {len(paths)} images in {where}", "cell": str(cell), "images": told}


def _classes(config: Config, where: str) -> dict[str, Any]:
    """The images of a store as points."""
    from twofold.steps import _seen

    opened = store.load(where)
    cell = _seen.cell_of(opened, config.split, config.cell)
    names = [str(name) for name in opened.about["classes"]]
    backbone = backbones.load(config.model, device=config.device, precision=config.precision)
    _seen.check_same(opened, backbone)
    table = opened.read(config.split, cell)
    if len(table.y) < LEAST_POINTS:
        raise BadData(f"{where} has {len(table.y)} {config.split} images; a layout needs {LEAST_POINTS}.")
    order = noise.generator(config.seed, 1, draw=3, purpose=noise.SHOTS).permutation(len(table.y))
    kept = np.sort(order[: _seen.MOST_POINTS])
    points = _seen.laid_out(table.x[kept], config.layout, config.seed)
    name = {"tsne": "t-SNE", "umap": "UMAP"}[config.layout]
    told = f"{name} of {len(kept):,} {config.split} images of {_short(str(opened.about['data']))}"
    insides.classes(points, table.y[kept], names, f"{told}\n{_where(backbone, cell)}", config.out)
    return {"shown": f"{told} by {cell}", "cell": str(cell), "n": len(kept)}


def _where(backbone: Backbone, cell: Cell) -> str:
    """Where features were read, in words."""
    t = cell.tap.t
    step = "" if t is None else f", t = {number_text(t)} (σ {backbone.sigma(t):.2g})"
    return f"block {cell.tap.block} ({backbone.block(cell.tap.block).name}){step}, pool {cell.pool}"


def _short(data: str) -> str:
    """A data set's name without the way to its folder."""
    return data.rstrip("/").rpartition("/")[2]

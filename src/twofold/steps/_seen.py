"""What `show` shows: principal components of maps, images near another one, and classes laid out on a plane."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twofold import noise, pooling
from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.datasets import base as datasets
from twofold.datasets.base import Dataset
from twofold.errors import BadSetting, BadStore, unknown
from twofold.plots.insides import Near, Picture
from twofold.records import Cell
from twofold.store import Store

if TYPE_CHECKING:
    from torch import Tensor

COMPONENTS = 3  # red, green, blue
LEAST_POSITIONS = 4  # three components of fewer say nothing
CLIPPED = (1, 99)  # percentiles of a component that become 0 and 1
MOST_POINTS = 2000
PERPLEXITY = 30


@dataclass(frozen=True, eq=False)
class Glance:
    """One image at one noise step: what goes into the network, and the maps [C, h, w] of its blocks."""

    entering: Picture
    maps: dict[int, NDArray[np.float64]]


def glances(
    backbone: Backbone, pictures: Sequence[Tensor], numbers: Sequence[int], steps: Sequence[float | None],
    blocks: Sequence[int], seed: int,
) -> list[list[Glance]]:  # fmt: skip
    """Each image (uint8 [3, H, W]) at each step; its noise belongs to its number and is the same at all steps."""
    import torch

    found = []
    for picture, number in zip(pictures, numbers, strict=True):
        x = backbone.preprocess([picture])
        own = torch.from_numpy(noise.normal(seed, [number], x.shape[1:]))
        line = []
        for t in steps:
            maps = backbone.features(x, t, list(blocks), None if t is None else own)
            told = {b: pooling.as_map(maps[b])[0].double().cpu().numpy() for b in blocks}
            line.append(Glance(_entering(backbone, picture, x, t, own), told))
        found.append(line)
    return found


def _entering(backbone: Backbone, picture: Tensor, x: Tensor, t: float | None, own: Tensor) -> Picture:
    """The noised image; of networks on latents what their decoder makes of noised latents."""
    if t is None or not isinstance(backbone, DiffusionBackbone):
        return picture.permute(1, 2, 0).numpy()
    import torch

    with torch.inference_mode():
        noised = backbone.noised(x, t, own)
        # Scaled back, so that a picture keeps its contrast where the noise is strong.
        signal, spread = backbone.coefficients(backbone.native(t, 1))
        shown = backbone.pixels(noised / (signal**2 + spread**2).sqrt())[0]
    return np.asarray(shown)


def colours(seen: Sequence[Sequence[Glance]], block: int) -> tuple[list[list[Picture]], float]:
    """One block's maps as colours, [h, w, 3] 0..1, and which share of their variance these show.

    The first three principal components of the positions of all images and steps together, so that a colour means
    the same in each. Their signs are scikit-learn's: the largest weight of each is positive.

    Raises:
        BadSetting: there are too few positions.
    """
    from sklearn.decomposition import PCA

    maps = [glance.maps[block] for line in seen for glance in line]
    rows = np.concatenate([m.reshape(len(m), -1).T for m in maps])
    if len(rows) < LEAST_POSITIONS:
        raise BadSetting(
            f"Block {block} has {maps[0].shape[1]}x{maps[0].shape[2]} positions, {len(rows)} in all; colours need "
            f"{LEAST_POSITIONS}. Give more images, more --t, or another of --blocks."
        )
    with np.errstate(invalid="ignore"):  # where nothing varies, no share is shown
        fitted = PCA(min(COMPONENTS, rows.shape[1]), svd_solver="full").fit(rows)
    low, high = np.percentile(fitted.transform(rows), CLIPPED, axis=0)
    spread = np.where(high > low, high - low, 1)
    shown = [_coloured((fitted.transform(m.reshape(len(m), -1).T) - low) / spread, m.shape[1:]) for m in maps]
    steps = len(seen[0])
    share = float(np.nan_to_num(fitted.explained_variance_ratio_).sum())
    return [shown[k * steps : (k + 1) * steps] for k in range(len(seen))], share


def _coloured(values: NDArray[np.float64], size: tuple[int, ...]) -> Picture:
    """Components [positions, up to 3] as a picture; those that are lacking are half."""
    full = np.full((len(values), COMPONENTS), 0.5)
    full[:, : values.shape[1]] = np.clip(values, 0, 1)
    return full.reshape(*size, COMPONENTS)


def cell_of(store: Store, split: str, asked: str | None) -> Cell:
    """The cell of a store that was asked for, or its only one.

    Raises:
        UnknownName, BadStore: there is no such cell, or there are several.
    """
    there = store.cells(split)
    names = [str(cell) for cell in there]
    if not there:
        raise BadStore(
            f"{store.place} has no finished {split} features. Run `twofold extract --split {split}` into it."
        )
    if asked is None and len(there) > 1:
        raise BadSetting(f"{store.place} holds {len(there)} cells. Give --cell: {', '.join(names)}.")
    if asked is not None and asked not in names:
        raise unknown(f"cell in {store.place}:", asked, names)
    return there[0 if asked is None else names.index(asked)]


def dataset_of(store: Store) -> Dataset:
    """The data set whose images a store is of.

    Raises:
        BadStore: what its name stands for now is another one.
    """
    name = str(store.about["data"])
    found = datasets.load(name)
    if found.fingerprint != store.key["data"]:
        raise BadStore(
            f"{store.place} was made from other images than {name} has now (or from a part of them). "
            "Run `twofold extract` again into a new folder."
        )
    return found


def check_same(store: Store, backbone: Backbone) -> None:
    """Raise `BadStore` where a store is of another network."""
    if store.key["backbone"] != backbone.identity or store.key["preprocessing"] != backbone.preprocessing:
        raise BadStore(
            f"{store.place} holds features of {store.about['model']}, not of {backbone.name}. "
            "Give that network, or a store that `twofold extract` made with this one."
        )


def nearest(
    rows: NDArray[np.float32], stored: NDArray[np.float32], dataset: Dataset, split: str, count: int
) -> list[list[Near]]:
    """The `count` stored images most like each of some features [M, D], by the cosine to the mean of the store."""
    mean = stored.mean(0, dtype=np.float64)
    angles = _unit(rows - mean) @ _unit(stored - mean).T
    images = dataset.build(split)
    found = []
    for line in angles:
        best = np.argsort(-line, kind="stable")[:count]
        shown = [image.permute(1, 2, 0).numpy() for image in images.read(best)]
        names = [dataset.classes[k] for k in images.labels[best]]
        found.append([Near(p, n, float(line[k])) for p, n, k in zip(shown, names, best, strict=True)])
    return found


def _unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    found: NDArray[np.float64] = flat / np.where(lengths > 0, lengths, 1)
    return found


def check_layout(layout: str) -> None:
    """Raise `BadSetting` where the library of a layout is not there."""
    if layout == "umap" and importlib.util.find_spec("umap") is None:
        raise BadSetting("--layout umap needs the library umap-learn. `pip install umap-learn`, or give --layout tsne.")


def laid_out(rows: NDArray[np.float32], layout: str, seed: int) -> NDArray[np.float64]:
    """Rows [N, D] on a plane, [N, 2]: t-SNE (van der Maaten and Hinton 2008) or UMAP (McInnes et al. 2018)."""
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    seed %= 2**32
    if layout == "umap":
        import umap

        found: NDArray[np.float64] = umap.UMAP(random_state=seed, n_jobs=1).fit_transform(flat)
        return found
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(flat) - 1) / 3)
    placed: NDArray[np.float64] = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(flat)
    return placed

"""Read features of every image into a store."""

from __future__ import annotations

from dataclasses import dataclass

from twofold.backbones import base as backbones
from twofold.datasets import base as datasets
from twofold.records import Outcome
from twofold.settings import setting
from twofold.steps import _cells, _fill, _spread, _views


@dataclass(frozen=True)
class Config(_fill.Reading):
    """Settings of `twofold extract`."""

    model: str = setting(help=backbones.MODEL_HELP)
    data: str = setting(help="data set to read: digits, ...")
    out: str = setting(help="store: a folder, or an address such as s3://bucket/features", identity=False)
    split: tuple[str, ...] = setting(("train", "val", "test"), help="splits to read", choices=datasets.SPLITS)
    blocks: tuple[str, ...] = setting(("all",), help="block numbers or names, or all; see twofold blocks", alone="all")
    t: tuple[float, ...] | None = setting(None, help="noise steps in the model's own unit; none: a ladder of sigmas")
    sigma: tuple[float, ...] | None = setting(None, help="noise-to-signal ratios instead of --t")
    pool: tuple[int, ...] = setting(
        (1, 2), help="sides of the grid that maps are averaged to; 0 keeps the map", least=0, most=8192
    )
    views: tuple[str, ...] | None = setting(None, help=_views.HELP, none="none")


def run(config: Config) -> Outcome:
    """Fill the store; a second run computes only what is missing."""
    _spread.check(config)
    splits = config.split + (_views.splits(config.views) if "train" in config.split else ())
    dataset = datasets.load(config.data, on_error=config.on_error)
    dataset.tell_skipped()
    backbone = config.load(config.model)
    wanted = _cells.asked(backbone, config.blocks, _cells.steps(backbone, config.t, config.sigma), config.pool)
    target = _fill.open_store(config.out, backbone, dataset, config)
    passes = _spread.fill(target, backbone, dataset, splits, wanted, config)
    rows = {split: len(target.index(split)) for split in splits}
    counted = ", ".join(f"{n} {split}" for split, n in rows.items())
    done = "nothing was left to do" if passes == 0 else f"took {passes} forward passes"
    return Outcome(
        {"store": str(config.out), "rows": rows, "cells": [str(c) for c in wanted], "passes": passes}
        | dataset.provenance,
        f"{config.out}: {len(wanted)} columns of {counted} rows; {done}.",
    )

"""Where a network is read: blocks, noise steps and pools asked for, as cells of a store."""

from __future__ import annotations

from collections.abc import Sequence

from twofold.backbones.base import Backbone, DiffusionBackbone
from twofold.errors import BadSetting
from twofold.records import Cell, Tap

# Where the papers look (P1 figure "accuracy over t": 10 .. 300 of the linear schedule), in the unit all models share.
SIGMAS = (0.01, 0.05, 0.11, 0.18, 0.31, 0.52, 1.2)


def asked(backbone: Backbone, blocks: Sequence[str], steps: Sequence[float | None], pools: Sequence[int]) -> list[Cell]:
    """Every (block, step, pool) asked for; pools larger than a block's map are left out, or refused if none is left."""
    chosen = backbone.blocks if list(blocks) == ["all"] else [backbone.block(b) for b in blocks]
    found = []
    for block in chosen:
        fitting = [p for p in pools if p <= block.size]
        if not fitting and list(blocks) != ["all"]:
            raise BadSetting(
                f"Pool {min(pools)} is larger than block {block.number}'s map of {block.size}x{block.size}. "
                "Give a smaller --pool."
            )
        found += [Cell(Tap(block.number, t), p) for t in steps for p in fitting]
    if not found:
        raise BadSetting(f"No block of {backbone.name} has a map as large as pool {min(pools)}. Give a smaller --pool.")
    return list(dict.fromkeys(found))


def steps(backbone: Backbone, t: Sequence[float] | None, sigma: Sequence[float] | None) -> list[float | None]:
    """The noise steps asked for, in the backbone's own unit; by default the ladder `SIGMAS`."""
    if t is not None and sigma is not None:
        raise BadSetting("Both --t and --sigma are given; they say the same thing. Give one of them.")
    if not isinstance(backbone, DiffusionBackbone):
        for asked in t or ():
            backbone.check_step(asked)
        if sigma is not None:
            backbone.step(sigma[0])
        return [None]
    if t is None:
        found = [backbone.step(s) for s in (sigma or SIGMAS)]
        return list(dict.fromkeys(found))
    for asked in t:
        backbone.check_step(asked)
    return list(dict.fromkeys(t))


def shape(backbone: Backbone, cell: Cell) -> tuple[int, ...]:
    """The shape of one image's features: (D,), or (C, h, w) of a map that is kept."""
    block = backbone.block(cell.tap.block)
    if cell.pool == 0:
        return (block.channels, block.size, block.size)
    return (block.channels * cell.pool**2,)

"""List where a network's features can be read: number, name, channels, size, share of the cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from twofold import results
from twofold.backbones import base as backbones
from twofold.records import Outcome
from twofold.settings import Settings, setting


@dataclass(frozen=True)
class Config(Settings):
    """Settings of `twofold blocks`."""

    model: str = setting(help=backbones.MODEL_HELP, positional=True)


def run(config: Config) -> Outcome:
    """Measure the blocks in one forward pass of shapes alone; no weights are read."""
    backbone = backbones.load(config.model, weightless=True)
    rows = [("b", "name", "channels", "size", "cost up to here")]
    for b in backbone.blocks:
        rows.append((str(b.number), b.name, str(b.channels), f"{b.size}x{b.size}", f"{100 * b.share:.1f} %"))
    return Outcome({"model": backbone.name, "blocks": [asdict(b) for b in backbone.blocks]}, results.table(rows))

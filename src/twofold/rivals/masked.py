"""Train the U-Net by masked image modelling: patches of images are blanked, and it predicts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twofold.records import Outcome
from twofold.rivals import _contest
from twofold.rivals.base import Common
from twofold.settings import setting

if TYPE_CHECKING:
    from twofold.backbones._network import DiffusionNetwork
    from twofold.rivals.base import Rival


@dataclass(frozen=True)
class Config(Common):
    """Settings of `twofold rival masked`."""

    patch: int | None = setting(None, help="side of a patch in pixels; none: an eighth of the image", least=1)
    share: float = setting(0.6, help="share of the patches that are blanked", least=0, most=1)


def run(config: Config) -> Outcome:
    """Train to the end, from the last checkpoint if there is one."""
    return _contest.run(config, _make)


def _make(config: Config, backbone: DiffusionNetwork) -> Rival:
    from twofold.rivals._blanked import Blanked

    return Blanked(backbone, seed=config.seed, patch=config.patch, share=config.share)

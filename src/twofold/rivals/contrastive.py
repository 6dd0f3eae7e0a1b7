"""Train the U-Net's encoder by SimCLR: two random views of an image are to be alike, views of others are not."""

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
    """Settings of `twofold rival contrastive`."""

    batch: int = setting(256, help="images per update; each is compared with all others of it", least=2, most=10**6)
    temperature: float = setting(0.2, help="of the softmax over likenesses", least=1e-3)
    crop: float = setting(0.4, help="smallest area of a view, as a share of the image", least=0.01, most=1)
    flip: bool = setting(False, help="mirror views at random; not for digits or text")


def run(config: Config) -> Outcome:
    """Train to the end, from the last checkpoint if there is one."""
    return _contest.run(config, _make)


def _make(config: Config, backbone: DiffusionNetwork) -> Rival:
    from twofold.rivals._alike import Alike

    return Alike(backbone, seed=config.seed, temperature=config.temperature, crop=config.crop, flip=config.flip)

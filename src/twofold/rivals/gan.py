"""Train the U-Net's encoder as the discriminator of a generative adversarial network, on the images of a data set."""

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
    """Settings of `twofold rival gan`."""

    lr: float = setting(5e-4, help="peak learning rate of AdamW, for both networks", least=0)
    penalty: float = setting(1.0, help="weight of the discriminator's squared slope at real images", least=0)
    samples: int = setting(1000, help="images that the generator leaves in samples/", least=1, most=10**7)


def run(config: Config) -> Outcome:
    """Train both networks to the end, from the last checkpoint if there is one."""
    return _contest.run(config, _make)


def _make(config: Config, backbone: DiffusionNetwork) -> Rival:
    from twofold.rivals._adversaries import Adversaries

    return Adversaries(backbone, seed=config.seed, penalty=config.penalty, samples=config.samples)

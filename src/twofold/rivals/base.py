"""What every rival is: another objective for the U-Net of a diffusion run, with the same images.

A rival has players, modules that are each moved by an optimizer of their own against a loss of their own; most
have one. The U-Net is read at its own least noise, on clean images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold.settings import Settings, setting
from twofold.steps import _memory

if TYPE_CHECKING:
    from torch import Tensor, nn

# The noise-to-signal ratio of the first step of the usual ladder: what a network that was told steps calls clean.
CLEAN = 0.01


@dataclass(frozen=True)
class Common(Settings):
    """Settings that all rivals have; durations are counted in images."""

    data: str = setting(help="data set to learn from, without its labels")
    like: str = setting(help="run of pretrain whose network is trained afresh, and whose budget is matched")
    out: Path = setting(help="folder of the run", identity=False)
    images: int | None = setting(
        None, help="length of training, in images seen; none: as many as the run of --like saw", least=1, most=10**12
    )
    batch: int = setting(64, help="images per update", least=2, most=10**6)
    lr: float = setting(2e-3, help="peak learning rate of AdamW", least=0)
    warmup: int = setting(3_000, help="images until the peak; then a cosine to zero", least=0, most=10**12)
    ema: int = setting(9_000, help="half-life of the weight average, in images", least=0, most=10**12)
    clip: float = setting(1.0, help="largest norm of the gradient; 0: no clipping", least=0)
    probe_every: int = setting(0, help="images between probe scores on val; 0: never", least=0, most=10**12)
    save_every: int = setting(10_000, help="images between checkpoints", least=1, most=10**12, identity=False)
    log_every: int = setting(1_280, help="images between lines of metrics.jsonl", least=1, most=10**12)
    seed: int = setting(0, help="seed of weights, order and chance", least=0, most=2**63 - 1)
    device: str | None = setting(None, help="cpu, cuda, cuda:N or mps; none: a GPU where there is one", identity=False)
    memory: float | None = _memory.setting(_memory.IMAGES)


class Rival(ABC):
    """Players and their losses.

    Attributes:
        players: name -> module; in this order they move, each on the same images.
        betas: of AdamW: how fast it forgets slopes, and their squares.
    """

    players: dict[str, nn.Module]
    betas: tuple[float, float] = (0.9, 0.999)

    @abstractmethod
    def loss(self, player: str, x: Tensor, numbers: range) -> Tensor:
        """What a player wants small: a function of weights, images -1..1 float [B, C, h, w] and image numbers."""

    def leave(self, folder: Path) -> dict[str, Any]:
        """Write what the rival leaves beside its network; gives facts about it."""
        return {}

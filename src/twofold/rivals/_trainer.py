"""Updates of a rival, and everything its checkpoint must hold; one process trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from twofold.backbones._network import DiffusionNetwork
from twofold.datasets.base import Dataset
from twofold.errors import BadRun
from twofold.rivals.base import CLEAN, Common, Rival
from twofold.steps import _checkpoints, _probing, _schedule
from twofold.steps._supply import Supply

CHECK_IMAGES = 8  # images on which weights are tried before they are kept
COUNTED = 2  # images whose operations are counted


@final
class Trainer:
    """A rival's players with their optimizers, their weight average and the count of images seen.

    Args:
        config: `images` is a number.
        rival: who is trained.
        backbone: the network that the rival's U-Net is part of.
        dataset: train is learned from, val only probed.
    """

    is_main = True

    def __init__(self, config: Common, rival: Rival, backbone: DiffusionNetwork, dataset: Dataset) -> None:
        assert config.images is not None
        self._config, self._rival, self._backbone, self._dataset = config, rival, backbone, dataset
        self._length: int = config.images
        self._supply = Supply(backbone, dataset.build("train"), config.memory)
        self._players = nn.ModuleDict(rival.players).to(self._supply.device)
        self._optimizers = {
            name: torch.optim.AdamW(player.parameters(), lr=config.lr, betas=rival.betas, weight_decay=0.0)
            for name, player in self._players.items()
        }
        self._weights = list(self._players.parameters())
        self._ema = EMAModel(self._weights, decay=0.5 ** (config.batch / config.ema) if config.ema else 0.0)
        own = {id(w) for w in backbone.network.parameters()}
        self.parameters = sum(w.numel() for w in self._weights if id(w) in own)
        self.beside = sum(w.numel() for w in self._weights) - self.parameters
        self.seen = self.saved = 0
        self.lr = 0.0
        self.told = ""
        self.tell: Callable[[Mapping[str, Any]], None] = lambda _record: None
        self._losses: list[float] = []

    def update(self) -> None:
        """One move of each player on the next images."""
        numbers = range(self.seen, min(self.seen + self._config.batch, self._length))
        coming = range(numbers.stop, min(numbers.stop + self._config.batch, self._length))
        self._supply.expect(lambda: self._rows(coming))
        self.lr = self._config.lr * _schedule.rate(self.seen, self._config.warmup, self._length)
        total = 0.0
        for name, player in self._players.items():
            loss = self._gradients(name, numbers)
            if self._config.clip:
                nn.utils.clip_grad_norm_(player.parameters(), self._config.clip)
            self._optimizers[name].param_groups[0]["lr"] = self.lr
            self._optimizers[name].step()
            total += float(loss)
        self._ema.step(self._weights)
        self.seen = numbers.stop
        self._losses.append(total)

    def losses(self) -> list[float]:
        """The sum of the players' losses in every update since `mean_loss` was last asked for."""
        return self._losses

    def mean_loss(self) -> float:
        """Mean over the updates since it was last asked for."""
        losses, self._losses = self._losses, []
        return sum(losses) / len(losses)

    def sound(self) -> bool:
        """Whether weights, average and moments are finite, and the losses that they give."""
        moments = [v for o in self._optimizers.values() for s in o.state.values() for v in s.values()]
        if not all(bool(t.isfinite().all()) for t in (*self._weights, *self._ema.shadow_params, *moments)):
            return False
        with self._averaged():
            averaged = self._last_loss()
        return math.isfinite(averaged) and math.isfinite(self._last_loss())

    def check_together(self) -> None:
        """Nothing to agree on: one process trains."""

    def wait(self) -> None:
        """Nobody to wait for."""

    def probe(self) -> float:
        """Accuracy on val of the averaged network on clean images, see `_probing`."""
        with self._averaged():
            return _probing.accuracy(self._backbone, self._dataset, self._backbone.step(CLEAN))

    def save(self, path: Path) -> None:
        """Write everything that the rest of training depends on, at once."""
        self.saved = self.seen
        state = {
            "seen": self.seen,
            "losses": self._losses,
            "players": self._players.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
            "ema": self._ema.state_dict(),
        }
        _checkpoints.write(path, state)

    def restore(self, path: Path) -> None:
        """Continue from what `save` wrote."""
        try:
            state = torch.load(path, map_location=self._supply.device, weights_only=True)
            self._players.load_state_dict(state["players"])
            for name, optimizer in self._optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            self._ema.load_state_dict(state["ema"])
            self._ema.to(self._supply.device)
            self._losses = list(state["losses"])
        except Exception as error:
            raise BadRun(f"{path} is damaged and cannot be continued from. Delete it to start again.") from error
        self.seen = self.saved = int(state["seen"])

    def pipeline(self) -> Any:
        """The averaged network as the pipeline that it came from; nothing can be trained on after it."""
        self._ema.copy_to(self._weights)
        return self._backbone.pipeline()

    def operations(self) -> int:
        """Multiplications and additions of training on one image, forward and backward, all players."""
        with FlopCounterMode(display=False) as counter:
            for name in self._players:
                self._gradients(name, range(COUNTED))
        return int(counter.get_total_flops()) // COUNTED

    def _gradients(self, player: str, numbers: range) -> Tensor:
        """The loss of a player; its gradients are left in its weights, and none are computed of the others'."""
        weights = list(self._players[player].parameters())
        self._players[player].zero_grad()
        loss = self._rival.loss(player, self._batch(numbers), numbers)
        torch.autograd.backward(loss, inputs=weights)
        return loss.detach()

    @torch.no_grad()
    def _last_loss(self) -> float:
        """Losses of some images of the last update, with the weights as they are now."""
        some = range(max(0, self.seen - CHECK_IMAGES), self.seen)
        return sum(float(self._rival.loss(name, self._batch(some), some)) for name in self._players)

    def _batch(self, numbers: range) -> Tensor:
        return self._supply.take(self._rows(numbers))

    def _rows(self, numbers: range) -> NDArray[np.int64]:
        return _schedule.order(self._config.seed, numbers, len(self._supply))

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in the network's place."""
        self._ema.store(self._weights)
        self._ema.copy_to(self._weights)
        try:
            yield
        finally:
            self._ema.restore(self._weights)

"""Training of a `Through`: epochs, what val says of each, the best weights, and checkpoints that outlive a kill."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from twofold import files
from twofold.errors import BadRun, Diverged
from twofold.heads._training import RECIPES, Recipe
from twofold.steps._epochs import Stream
from twofold.steps._through import Through

log = logging.getLogger("twofold")

DECAY, CLIP = 0.05, 1.0  # of the strong recipe; the paper's has neither
STATE, BEST, METRICS = "state.pt", "best.safetensors", "metrics.jsonl"


@dataclass
class Tuner:
    """One training at one learning rate.

    Attributes:
        network: what is trained.
        recipe: its name; optimiser, schedule and label smoothing are those of the heads' recipes.
        epochs, rate: passes over the images, and the peak learning rate.
        lower: whether the network computes in bfloat16 while its weights stay in single precision.
    """

    network: Through
    recipe: str
    epochs: int
    rate: float
    lower: bool = False

    def __post_init__(self) -> None:
        self._recipe: Recipe = RECIPES[self.recipe]
        self.trained = [p for p in self.network.parameters() if p.requires_grad]
        self.device = next(self.network.head.parameters()).device
        matrices = [p for p in self.trained if p.ndim > 1]
        others = [p for p in self.trained if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(groups, lr=self.rate)
            if self._recipe.adaptive
            else torch.optim.SGD(self.trained, lr=self.rate)
        )

    def epoch(self, number: int, stream: Stream, bar: Any) -> float:
        """One pass; gives the mean loss."""
        self.network.train()
        total = torch.zeros((), device=self.device)
        for k, (x, own, labels) in enumerate(stream.epoch(number)):
            done = (number * stream.batches + k + 0.5) / (self.epochs * stream.batches)
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * self._recipe.rate(done)
            total += self._update(x, own, labels) * len(x)
            bar.advance(len(x), f"epoch {number + 1}")
        mean = float(total) / len(stream.rows)
        if not math.isfinite(mean):
            raise Diverged(f"The loss of epoch {number + 1} is not finite at rate {self.rate:g}. Give smaller --rates.")
        return mean

    def _update(self, x: Tensor, own: Tensor | None, labels: Tensor) -> Tensor:
        with _format(self.device, self.lower):
            scores = self.network(x, own)
        loss = nn.functional.cross_entropy(
            scores.float(), labels.to(self.device), label_smoothing=self._recipe.smoothing
        )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._recipe.adaptive:
            torch.nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimizer.step()
        return loss.detach()

    def scores(self, stream: Stream) -> Tensor:
        """Class scores of a split; see `scores`."""
        return scores(self.network, stream, self.lower)

    def right(self, stream: Stream) -> NDArray[np.bool_]:
        """Which images of a split are classified rightly, bool [N]."""
        right: NDArray[np.bool_] = self.scores(stream).argmax(1).numpy() == stream.rows.labels
        return right


@torch.no_grad()
def scores(network: Through, stream: Stream, lower: bool) -> Tensor:
    """Class scores of every image in its order, without augmentation; float32 [N, K] on the CPU."""
    network.eval()
    device = next(network.head.parameters()).device
    found = []
    for x, own, _ in stream.plain():
        with _format(device, lower):
            found.append(network(x, own).float().cpu())
    return torch.cat(found)


def probabilities(scores: Tensor) -> NDArray[np.float64]:
    """Class probabilities of scores, float64 [N, K]."""
    found: NDArray[np.float64] = scores.double().softmax(1).numpy()
    return found


def _format(device: torch.device, lower: bool) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if lower else nullcontext()


def best_of(rates: Sequence[float], made: Any, train: Stream, val: Stream, folder: Path, bar: Any) -> dict[str, Any]:
    """Train once for every rate; the weights that were best on val after any epoch end in `best.safetensors`.

    Args:
        rates: peak learning rates.
        made: rate -> a fresh `Tuner`.
        train, val: the images.
        folder: of the run; an earlier part of the same training in it is continued.
        bar: is told of images.

    Returns:
        what val chose: `rate`, `epoch` (from 1) and `val`, its accuracy.
    """
    state = _State(folder)
    for position in range(state.position, len(rates)):
        tuner: Tuner = made(rates[position])
        state.restore(tuner, position)
        for number in range(state.epoch, tuner.epochs):
            loss = tuner.epoch(number, train, bar)
            accuracy = float(tuner.right(val).mean())
            told = {"rate": rates[position], "epoch": number + 1, "loss": loss, "val": accuracy}
            log.info("rate %g, epoch %d: loss %.4f, val %.1f %%", rates[position], number + 1, loss, 100 * accuracy)
            state.note(tuner, told)
    return state.best


class _State:
    """How far a training has come, on disk after every epoch.

    What is written last is the state, so whatever a kill leaves half done is done again in the same way.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.position, self.epoch = 0, 0
        self.metrics: list[dict[str, Any]] = []
        self._kept: dict[str, Any] | None = None
        path = folder / STATE
        if path.exists():
            try:
                self._kept = torch.load(path, map_location="cpu", weights_only=True)
                self.position, self.epoch = self._kept["position"], self._kept["epoch"]
                self.metrics = self._kept["metrics"]
            except Exception as error:
                raise BadRun(f"{path} is damaged and cannot be continued from. Delete it to start again.") from error

    @property
    def best(self) -> dict[str, Any]:
        """The first of the epochs that val likes best."""
        top = max(self.metrics, key=lambda told: told["val"])
        return {name: top[name] for name in ("rate", "epoch", "val")}

    def restore(self, tuner: Tuner, position: int) -> None:
        """Bring a tuner to where it was, or begin at its first epoch."""
        if self._kept is None or position != self.position:
            self.position, self.epoch = position, 0
            return
        try:
            tuner.network.load_state_dict(self._kept["network"])
            tuner.optimizer.load_state_dict(self._kept["optimizer"])
        except Exception as error:
            raise BadRun(f"{self._folder / STATE} is of another training. Delete it to start again.") from error

    def note(self, tuner: Tuner, told: dict[str, Any]) -> None:
        """An epoch is done."""
        if not self.metrics or told["val"] > self.best["val"]:
            tensors = {name: w.detach().cpu().contiguous() for name, w in tuner.network.state_dict().items()}
            with files.replacing(self._folder / BEST) as temporary:
                save_file(tensors, temporary)
        self.metrics.append(told)
        self.epoch += 1
        lines = "".join(f"{line}\n" for line in _lines(self.metrics))
        files.write_text(self._folder / METRICS, lines)
        content = io.BytesIO()
        torch.save(
            {
                "position": self.position, "epoch": self.epoch, "metrics": self.metrics,
                "network": tuner.network.state_dict(), "optimizer": tuner.optimizer.state_dict(),
            },
            content,
        )  # fmt: skip
        with files.replacing(self._folder / STATE) as temporary:
            temporary.write_bytes(content.getbuffer())


def _lines(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    import json

    return (json.dumps(record) for record in records)


def load_best(network: Through, folder: Path) -> None:
    """The weights that val chose.

    Raises:
        BadRun: they are damaged, or of another network.
    """
    path = folder / BEST
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BadRun(f"{path} is damaged or of another network. Make its run again in another folder.") from error

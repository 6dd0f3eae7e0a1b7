"""Training of a `Through`: epochs, what val says of each, the best weights, and checkpoints that outlive a kill."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Callable, Sequence
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

from twofold import files, runs
from twofold.errors import BadRun, Diverged
from twofold.heads._training import RECIPES, Candidate, Recipe
from twofold.steps import _checkpoints, _together
from twofold.steps._epochs import Stream
from twofold.steps._through import Through

log = logging.getLogger("twofold")

CLIP = 1.0  # of the strong recipe; the paper's has none
STATE, BEST, METRICS = "state.pt", "best.safetensors", "metrics.jsonl"


@dataclass
class Tuner:
    """The training of one network, with a head for every candidate of rate and decay.

    Several candidates share the features of every batch, which only a frozen network's may.

    Attributes:
        network: what is trained; its head is the first candidate's.
        recipe: its name; optimiser, schedule and label smoothing are those of the heads' recipes.
        epochs: passes over the images.
        candidates: peak learning rates and weight decays.
        lower: whether the network computes in bfloat16 while its weights stay in single precision.
    """

    network: Through
    recipe: str
    epochs: int
    candidates: tuple[Candidate, ...]
    lower: bool = False

    def __post_init__(self) -> None:
        self._recipe: Recipe = RECIPES[self.recipe]
        self.device = next(self.network.head.parameters()).device
        _together.joined(self.network)
        first = [p for p in self.network.parameters() if p.requires_grad]
        # All heads start alike, as if each were trained by itself.
        copies = [copy.deepcopy(self.network.head) for _ in self.candidates[1:]]
        self.heads = nn.ModuleList([self.network.head, *copies])
        self.trained = [first, *([*head.parameters()] for head in copies)]
        groups = [
            {"params": [p for p in weights if (p.ndim > 1) is matrices], "peak": one.rate, "lr": one.rate,
             "weight_decay": one.decay if matrices else 0.0}
            for one, weights in zip(self.candidates, self.trained, strict=True)
            for matrices in (True, False)
        ]  # fmt: skip
        adaptive = self._recipe.adaptive
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups) if adaptive else torch.optim.SGD(groups)

    def epoch(self, number: int, stream: Stream, bar: Any) -> list[float]:
        """One pass; gives every candidate's mean loss."""
        self.network.train()
        self.heads.train()
        total = torch.zeros(len(self.candidates), device=self.device)
        for k, ((x, own, labels), whole) in enumerate(zip(stream.epoch(number), stream.sizes, strict=True)):
            done = (number * stream.batches + k + 0.5) / (self.epochs * stream.batches)
            for group in self.optimizer.param_groups:
                group["lr"] = group["peak"] * self._recipe.rate(done)
            total += self._update(x, own, labels, whole)
            bar.advance(whole, f"epoch {number + 1}")
        _together.add([total])
        means = [loss / len(stream.rows) for loss in total.tolist()]
        for one, mean in zip(self.candidates, means, strict=True):
            if not math.isfinite(mean):
                raise Diverged(
                    f"The loss of epoch {number + 1} is not finite at rate {one.rate:g}. Give smaller --rates."
                )
        return means

    def _update(self, x: Tensor, own: Tensor | None, labels: Tensor, whole: int) -> Tensor:
        """One update of every candidate; gives the sums of their losses over the images that are here.

        Args:
            x, own, labels: this process's share of a batch.
            whole: images of the batch, in all processes.
        """
        with _format(self.device, self.lower):
            scores = self._answers(x, own)
        told = labels.to(self.device)
        smoothing = self._recipe.smoothing
        losses = torch.stack([nn.functional.cross_entropy(one, told, label_smoothing=smoothing) for one in scores])
        losses = losses * len(x)
        self.optimizer.zero_grad()
        # They share no weights, so the gradients of the sum are those of each.
        (losses.sum() / whole).backward()  # type: ignore[no-untyped-call]
        _together.add(p.grad for weights in self.trained for p in weights if p.grad is not None)
        if self._recipe.adaptive:
            for weights in self.trained:
                torch.nn.utils.clip_grad_norm_(weights, CLIP)
        self.optimizer.step()
        return losses.detach()

    def _answers(self, x: Tensor, own: Tensor | None) -> list[Tensor]:
        features = self.network.features(x, own)
        return [head(features).float() for head in self.heads]

    @torch.no_grad()
    def accuracies(self, stream: Stream) -> list[float]:
        """The share of a split's images that each candidate classifies rightly."""
        self.network.eval()
        self.heads.eval()
        right = torch.zeros(len(self.candidates), dtype=torch.long)
        for x, own, labels in stream.plain():
            with _format(self.device, self.lower):
                scores = self._answers(x, own)
            right += torch.tensor([int((one.argmax(1).cpu() == labels).sum()) for one in scores])
        right = torch.tensor(_together.gathered(right.tolist())).sum(0)
        return (right.double() / len(stream.rows)).tolist()

    def weights(self, position: int) -> dict[str, Tensor]:
        """The network's own names and weights with the head of one candidate."""
        with_first = self.network.state_dict()
        head = {f"head.{name}": w for name, w in self.heads[position].state_dict().items()}
        return {**with_first, **head}

    def state(self) -> dict[str, Any]:
        """All that goes on changing."""
        return {"network": self.network.state_dict(), "heads": self.heads.state_dict(),
                "optimizer": self.optimizer.state_dict()}  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Be as `state` said."""
        self.network.load_state_dict(state["network"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])


@torch.no_grad()
def scores(network: Through, stream: Stream, lower: bool) -> Tensor:
    """Class scores of every image in its order, without augmentation; float32 [N, K] on the CPU."""
    network.eval()
    device = next(network.head.parameters()).device
    found = []
    for x, own, _ in stream.plain():
        with _format(device, lower):
            found.append(network(x, own).float().cpu())
    return _together.stretches(found)


def probabilities(scores: Tensor) -> NDArray[np.float64]:
    """Class probabilities of scores, float64 [N, K]."""
    found: NDArray[np.float64] = scores.double().softmax(1).numpy()
    return found


def _format(device: torch.device, lower: bool) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if lower else nullcontext()


def best_of(
    groups: Sequence[tuple[Candidate, ...]], made: Callable[[tuple[Candidate, ...]], Tuner], train: Stream, val: Stream,
    folder: Path, bar: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train every candidate; the weights that were best on val after any epoch end in `best.safetensors`.

    Args:
        groups: peak learning rates and weight decays; a group's are trained in one pass over the images.
        made: group -> a fresh `Tuner`.
        train, val: the images.
        folder: of the run; an earlier part of the same training in it is continued.
        bar: is told of images.

    Returns:
        what val chose: `rate`, `decay`, `epoch` (from 1) and `val`, its accuracy.
    """
    state = _State(folder)
    for position in range(state.position, len(groups)):
        tuner = made(groups[position])
        state.restore(tuner, position)
        for number in range(state.epoch, tuner.epochs):
            losses = tuner.epoch(number, train, bar)
            told = [
                {"rate": one.rate, "decay": one.decay, "epoch": number + 1, "loss": loss, "val": accuracy}
                for one, loss, accuracy in zip(tuner.candidates, losses, tuner.accuracies(val), strict=True)
            ]
            for one in told:
                log.info("rate %(rate)g, epoch %(epoch)d: loss %(loss).4f, val %(val).4f", one)
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
        return {name: top[name] for name in ("rate", "decay", "epoch", "val")}

    def restore(self, tuner: Tuner, position: int) -> None:
        """Bring a tuner to where it was, or begin at its first epoch."""
        if self._kept is None or position != self.position:
            self.position, self.epoch = position, 0
            return
        try:
            tuner.restore(self._kept)
        except Exception as error:
            raise BadRun(f"{self._folder / STATE} is of another training. Delete it to start again.") from error

    def note(self, tuner: Tuner, told: Sequence[dict[str, Any]]) -> None:
        """An epoch is done; `told` has a line for each candidate."""
        for position, line in enumerate(told):
            if runs.is_main() and (not self.metrics or line["val"] > self.best["val"]):
                tensors = {name: w.detach().cpu().contiguous() for name, w in tuner.weights(position).items()}
                with files.replacing(self._folder / BEST) as temporary:
                    save_file(tensors, temporary)
            self.metrics.append(line)
        self.epoch += 1
        if not runs.is_main():
            return
        lines = "".join(f"{json.dumps(line)}\n" for line in self.metrics)
        files.write_text(self._folder / METRICS, lines)
        told_so_far = {"position": self.position, "epoch": self.epoch, "metrics": self.metrics}
        _checkpoints.write(self._folder / STATE, {**told_so_far, **tuner.state()})


def load_best(network: Through, folder: Path) -> None:
    """The weights that val chose.

    Raises:
        BadRun: they are damaged, or of another network.
    """
    _together.wait()  # for the process that writes
    path = folder / BEST
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BadRun(f"{path} is damaged or of another network. Make its run again in another folder.") from error

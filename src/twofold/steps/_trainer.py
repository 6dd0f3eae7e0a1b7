"""One update of diffusion pre-training, and everything a checkpoint must hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from numpy.typing import NDArray
from torch import Tensor

from twofold import runs
from twofold.backbones.base import Placement, place
from twofold.datasets.base import Dataset
from twofold.errors import BadRun, BadSetting
from twofold.steps import _architecture, _augment, _checkpoints, _labels, _objectives, _probing, _schedule, _together
from twofold.steps._averages import Averages
from twofold.steps._supply import Supply

_MIXED = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}  # accelerate's words
CHECK_IMAGES = 8  # images on which weights are tried before they are kept


@dataclass(frozen=True)
class Recipe:
    """What the weights depend on, apart from the images; the words are those of `twofold pretrain`."""

    images: int
    batch: int
    lr: float
    warmup: int
    ema: tuple[int, ...]
    clip: float
    unet: str
    widths: tuple[int, ...] | None
    layers: int | None
    objective: str
    schedule: str
    learned_variance: bool
    labels: bool
    label_dropout: float
    augment: str
    steps: int
    seed: int
    device: str | None
    precision: str
    accumulate: int
    checkpointing: bool
    compile: bool
    memory: float | None

    @classmethod
    def of(cls, config: Any) -> Recipe:
        """The settings of these names."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    def wanted(self, side: int, dataset: Dataset) -> _architecture.Wanted:
        """The shape of the network for images of this side."""
        classes = len(dataset.classes) if self.labels else 0
        outputs = 1 + self.learned_variance
        return _architecture.Wanted(side, dataset.channels, self.unet, self.widths, self.layers, outputs, classes)


class Trainer:
    """Network, optimizer, weight averages and the count of images seen.

    Attributes:
        backbone: the network as it is read and sampled, where it is `averaged`.
        tell: is told what is noted; a tracker, or nobody.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, side: int) -> None:
        self.recipe = recipe
        placed = place(recipe.device, recipe.precision)
        where, mixed = placed.device, _MIXED[placed.dtype]
        if where.index is not None:
            if runs.processes() > 1:
                raise BadSetting(f"--device {where} is one GPU, for {runs.processes()} processes. Give cuda.")
            # accelerate takes the current GPU.
            torch.cuda.set_device(where)
        # accelerate keeps one state a process; another training in it may have another precision.
        AcceleratorState._reset_state(reset_partial_state=True)
        waiting = InitProcessGroupKwargs(timeout=_together.PATIENCE)
        self._accelerator = Accelerator(mixed_precision=mixed, cpu=where.type == "cpu", kwargs_handlers=[waiting])
        self.is_main: bool = self._accelerator.is_main_process
        self._objective = _objectives.make(recipe.objective, recipe.schedule, recipe.steps, recipe.learned_variance)
        classes = len(dataset.classes) if recipe.labels else 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            unet = _architecture.network(recipe.wanted(side, dataset))
        unet.to(self._accelerator.device, memory_format=torch.channels_last)
        # Before the optimizer is told of the weights: the table of classes gets a row for "no class".
        placement = Placement(self._accelerator.device, torch.float32, compile=recipe.compile)
        self.backbone = self._objective.backbone(unet, placement)
        if recipe.checkpointing:
            self.backbone.recompute()
        self.parameters = sum(p.numel() for p in unet.parameters() if p.requires_grad)
        self._network: Any = unet
        if recipe.augment == "edm":
            unet.class_embedding = _augment.Told(unet)
        optimizer = torch.optim.AdamW(unet.parameters(), lr=recipe.lr, weight_decay=0.0, fused=True)
        self._unet, self._optimizer = self._accelerator.prepare(unet, optimizer)
        self._parameters = [p for p in unet.parameters() if p.requires_grad]
        self._averages = Averages(self._parameters, recipe.ema, recipe.batch)
        self._dataset = dataset
        self._supply = Supply(self.backbone, dataset.build("train"), recipe.memory)
        self._labels = torch.from_numpy(_labels.whole(dataset, "train")).to(self._supply.device) if classes else None
        self.seen = self.saved = 0
        self.lr = 0.0
        self.told = ""
        self.tell: Callable[[Mapping[str, Any]], None] = lambda _record: None
        # Reading a loss waits for the device, so losses wait until one is asked for.
        self._unread: list[Tensor] = []
        self._losses: list[float] = []

    def update(self) -> None:
        """One optimizer step on the next images; their loss is kept without waiting for it."""
        share, count = self._share(self.seen), min(self.recipe.batch, self.recipe.images - self.seen)
        self._set_rate()
        coming = self._share(self.seen + count)
        self._supply.expect(lambda: _schedule.order(self.recipe.seed, coming, len(self._supply)))
        # All processes must take part, so one without a share takes an image that does not count.
        parts = [part for part in _cut(share, self.recipe.accumulate) if part] or [share]
        losses = [self._backward(part, count, last=part is parts[-1]) for part in parts]
        if self.recipe.clip:
            self._accelerator.clip_grad_norm_(self._parameters, self.recipe.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._averages.step()
        self.seen += count
        self._unread.append(torch.stack(losses).sum())

    def _backward(self, part: range, count: int, *, last: bool) -> Tensor:
        """Add the gradients of some of an update's `count` images; processes exchange them after the last."""
        with nullcontext() if last else self._accelerator.no_sync(self._unet):
            loss = self._loss(self._unet, part or range(self.seen, self.seen + 1))
            # Gradients are averaged over processes; so weighted, the average is that of the images, as in one process.
            loss = loss * (len(part) * self._accelerator.num_processes / count)
            self._accelerator.backward(loss)
        kept: Tensor = loss.detach()
        return kept

    def losses(self) -> list[float]:
        """The loss of every update since `mean_loss` was last asked for, each the mean over its images."""
        if self._unread:
            self._losses += self._accelerator.gather(torch.stack(self._unread)[None]).mean(0).tolist()
            self._unread = []
        return self._losses

    def mean_loss(self) -> float:
        """Mean over the updates since it was last asked for."""
        losses = self.losses()
        self._losses = []
        return sum(losses) / len(losses)

    def sound(self) -> bool:
        """Whether the last update left something to go on from: finite weights, average and moments, and a finite loss.

        Finite weights may still be so large that every loss is infinite, so both networks see some images again.
        """
        moments = [v for state in self._optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
        kept = (*self._parameters, *self._averages.tensors, *moments)
        finite = all(bool(tensor.isfinite().all()) for tensor in kept)
        if finite:
            with self._averages.in_place():
                finite = math.isfinite(self._last_loss())
        return all(self._gathered(int(finite and math.isfinite(self._last_loss()))))

    def check_together(self) -> None:
        """Raise `BadRun` where several processes were started, but would not train one network together."""
        started = runs.processes()
        if self._accelerator.num_processes != started:
            raise BadRun(f"{started} processes were started, but cannot find one another. Start them with torchrun.")
        if len(set(self._gathered(self.seen))) > 1:
            raise BadRun("The processes see different checkpoints. Give --out a folder that all of them share.")

    def wait(self) -> None:
        """Wait until all processes are here."""
        self._accelerator.wait_for_everyone()

    def probe(self) -> float:
        """Accuracy on val of the averaged network, see `_probing`."""
        with self.averaged(), _together.alone():
            return _probing.accuracy(self.backbone, self._dataset, self.backbone.step(_probing.SIGMA))

    def save(self, path: Path) -> None:
        """Write everything that the rest of training depends on, at once."""
        losses, self.saved = self.losses(), self.seen
        if not self.is_main:
            return
        state = {
            "seen": self.seen,
            "losses": losses,
            "unet": self._accelerator.unwrap_model(self._unet).state_dict(),
            "optimizer": self._optimizer.state_dict(),
            **self._averages.state(),
            "scaler": self._accelerator.scaler.state_dict() if self._accelerator.scaler else None,
        }
        _checkpoints.write(path, state)

    def restore(self, path: Path) -> None:
        """Continue from what `save` wrote."""
        try:
            # First to memory: of several processes on a CPU accelerate's device is cpu:0, to which torch loads nothing.
            state = torch.load(path, map_location="cpu", weights_only=True)
            self._accelerator.unwrap_model(self._unet).load_state_dict(state["unet"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._averages.load(state, self._accelerator.device)
            if self._accelerator.scaler:
                self._accelerator.scaler.load_state_dict(state["scaler"])
            self._losses = list(state["losses"])
        except Exception as error:
            raise BadRun(f"{path} is damaged and cannot be continued from. Delete it to start again.") from error
        self.seen = self.saved = int(state["seen"])

    def pipeline(self) -> Any:
        """The network with its schedule, as a pipeline of diffusers; to be saved while it is `averaged`."""
        return self.backbone.pipeline()

    def _loss(self, unet: Any, numbers: range) -> Tensor:
        """The objective's loss for images of these numbers."""
        drawn = _schedule.draw(self.recipe.seed, numbers, len(self._supply), self._supply.shape, self._objective.steps)
        x = self._supply.take(drawn.rows)
        ways = None
        if self.recipe.augment != "none":
            ways = _augment.changes(self.recipe.augment, self.recipe.seed, numbers)
            x = _augment.changed(x, ways)
        levels, eps = torch.from_numpy(drawn.steps).to(x.device), torch.from_numpy(drawn.noise).to(x.device)
        told = self._told(drawn, ways)

        def ask(sample: Tensor, timestep: Tensor) -> Tensor:
            with self._accelerator.autocast():
                given: Tensor = unet(sample.contiguous(memory_format=torch.channels_last), timestep, **told).sample
            return given

        return self._objective.loss(ask, self.backbone, x, levels, eps)

    def _told(self, drawn: _schedule.Draw, ways: NDArray[np.float32] | None) -> dict[str, Tensor]:
        """What the network learns beside images: their labels, some of them left out, and their changes."""
        labels = None
        if self._labels is not None:
            labels = self._labels[torch.from_numpy(drawn.rows)]
            left_out = torch.from_numpy(drawn.chances < self.recipe.label_dropout).to(labels.device)
            labels = labels.masked_fill(left_out, self.backbone.classes)
        if self.recipe.augment == "edm" and ways is not None:
            return {"class_labels": _augment.together(labels, ways, self._supply.device)}
        return {} if labels is None else {"class_labels": labels}

    @torch.no_grad()
    def _last_loss(self) -> float:
        """Loss of some images of the last update, with the weights as they are now."""
        some = range(max(0, self.seen - CHECK_IMAGES), self.seen)
        return float(self._loss(self._accelerator.unwrap_model(self._unet), some))

    @contextmanager
    def averaged(self, which: int = 0) -> Iterator[None]:
        """The network as it is read, sampled and saved: with averaged weights, and told of nothing but classes."""
        training = self._network.class_embedding
        with self._averages.in_place(which):
            self._network.eval()
            if isinstance(training, _augment.Told):
                self._network.class_embedding = training.classes
            try:
                yield
            finally:
                self._network.class_embedding = training
                self._network.train()

    def _gathered(self, value: int) -> list[int]:
        """A whole number of every process."""
        here = torch.tensor([value], device=self._accelerator.device)
        found: list[int] = self._accelerator.gather(here).tolist()
        return found

    def _share(self, seen: int) -> range:
        """This process's part of the image numbers of the batch after so many; the last batch may be smaller."""
        end = min(seen + self.recipe.batch, self.recipe.images)
        mine: int = self._accelerator.process_index
        return _cut(range(seen, end), self._accelerator.num_processes)[mine]

    def _set_rate(self) -> None:
        self.lr = self.recipe.lr * _schedule.rate(self.seen, self.recipe.warmup, self.recipe.images)
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr


def _cut(numbers: range, parts: int) -> list[range]:
    """Parts of nearly the same size; some are empty where there are more parts than numbers."""
    cuts = [len(numbers) * k // parts for k in range(parts + 1)]
    return [numbers[a:b] for a, b in pairwise(cuts)]

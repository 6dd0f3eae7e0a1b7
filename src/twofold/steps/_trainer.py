"""One update of diffusion pre-training, and everything a checkpoint must hold."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor

from twofold import files, runs
from twofold.backbones.base import Placement, place
from twofold.datasets.base import Dataset
from twofold.errors import BadRun, BadSetting
from twofold.steps import _labels, _objectives, _probing, _schedule

CHECK_IMAGES = 8  # images on which weights are tried before they are kept
ATTENTION_UP_TO = 16  # maps of this side or smaller get attention, as in Ho et al. 2020


@dataclass(frozen=True)
class Recipe:
    """What the weights depend on, apart from the images; the words are those of `twofold pretrain`."""

    images: int
    batch: int
    lr: float
    warmup: int
    ema: int
    clip: float
    widths: tuple[int, ...] | None
    layers: int | None
    objective: str
    schedule: str
    learned_variance: bool
    labels: bool
    label_dropout: float
    steps: int
    seed: int
    device: str | None
    precision: str

    @classmethod
    def of(cls, config: Any) -> Recipe:
        """The settings of these names."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})


class Trainer:
    """Network, optimizer, weight average and the count of images seen."""

    def __init__(self, recipe: Recipe, dataset: Dataset, side: int) -> None:
        self.recipe = recipe
        where = place(recipe.device, "fp32").device
        mixed = "no" if recipe.precision == "fp32" else recipe.precision
        if where.index is not None:
            if runs.processes() > 1:
                raise BadSetting(f"--device {where} is one GPU, for {runs.processes()} processes. Give cuda.")
            # accelerate takes the current GPU.
            torch.cuda.set_device(where)
        # accelerate keeps one state a process; another training in it may have another precision.
        AcceleratorState._reset_state(reset_partial_state=True)
        self._accelerator = Accelerator(mixed_precision=mixed, cpu=where.type == "cpu")
        self.is_main: bool = self._accelerator.is_main_process
        self._objective = _objectives.make(recipe.objective, recipe.schedule, recipe.steps, recipe.learned_variance)
        classes = len(dataset.classes) if recipe.labels else 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            unet = network(side, dataset.channels, recipe.widths, recipe.layers, self._objective.outputs, classes)
        unet.to(self._accelerator.device, memory_format=torch.channels_last)
        # Before the optimizer is told of the weights: the table of classes gets a row for "no class".
        self._backbone = self._objective.backbone(unet, Placement(self._accelerator.device, torch.float32))
        optimizer = torch.optim.AdamW(unet.parameters(), lr=recipe.lr, weight_decay=0.0, fused=True)
        # The half-life in images, as a decay an update; short runs warm up: (1 + k) / (10 + k).
        decay = 0.5 ** (recipe.batch / recipe.ema) if recipe.ema else 0.0
        self._ema = EMAModel(unet.parameters(), decay=decay, foreach=True)
        self._unet, self._optimizer = self._accelerator.prepare(unet, optimizer)
        self._parameters = [p for p in unet.parameters() if p.requires_grad]
        self.parameters = sum(p.numel() for p in self._parameters)
        self._dataset = dataset
        rows = dataset.build("train")
        self._images = self._backbone.preprocess(rows.read(range(len(rows))))
        self._labels = torch.from_numpy(_labels.whole(dataset, "train")).to(self._images.device) if classes else None
        self.seen = self.saved = 0
        self.lr = 0.0
        self.told = ""
        # Reading a loss waits for the device, so losses wait until one is asked for.
        self._unread: list[Tensor] = []
        self._losses: list[float] = []

    def update(self) -> None:
        """One optimizer step on the next images; their loss is kept without waiting for it."""
        share, count = self._share(), min(self.recipe.batch, self.recipe.images - self.seen)
        # All processes must take part, so one without a share takes an image that does not count.
        loss = self._loss(self._unet, share or range(self.seen, self.seen + 1))
        # Gradients are averaged over processes; so weighted, the average is that of the images, as in one process.
        loss = loss * (len(share) * self._accelerator.num_processes / count)
        self._set_rate()
        self._accelerator.backward(loss)
        if self.recipe.clip:
            self._accelerator.clip_grad_norm_(self._parameters, self.recipe.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._ema.step(self._parameters)
        self.seen += count
        self._unread.append(loss.detach())

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
        kept = (*self._parameters, *self._ema.shadow_params, *moments)
        finite = all(bool(tensor.isfinite().all()) for tensor in kept)
        if finite:
            with self._averaged():
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
        with self._averaged():
            return _probing.accuracy(self._backbone, self._dataset, self._backbone.step(_probing.SIGMA))

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
            "ema": self._ema.state_dict(),
            "scaler": self._accelerator.scaler.state_dict() if self._accelerator.scaler else None,
        }
        # Through memory, since a full disk shows as an error of the file and not of torch.
        content = io.BytesIO()
        torch.save(state, content)
        with files.replacing(path) as temporary:
            temporary.write_bytes(content.getbuffer())

    def restore(self, path: Path) -> None:
        """Continue from what `save` wrote."""
        try:
            state = torch.load(path, map_location=self._accelerator.device, weights_only=True)
            self._accelerator.unwrap_model(self._unet).load_state_dict(state["unet"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._ema.load_state_dict(state["ema"])
            self._ema.to(self._accelerator.device)
            if self._accelerator.scaler:
                self._accelerator.scaler.load_state_dict(state["scaler"])
            self._losses = list(state["losses"])
        except Exception as error:
            raise BadRun(f"{path} is damaged and cannot be continued from. Delete it to start again.") from error
        self.seen = self.saved = int(state["seen"])

    def pipeline(self) -> Any:
        """The averaged network with its schedule, as a pipeline of diffusers; nothing can be trained on after it."""
        self._ema.copy_to(self._parameters)
        return self._backbone.pipeline()

    def _loss(self, unet: Any, numbers: range) -> Tensor:
        """The objective's loss for images of these numbers."""
        shape, steps = self._images.shape[1:], self._objective.steps
        drawn = _schedule.draw(self.recipe.seed, numbers, len(self._images), shape, steps)
        x = self._images[torch.from_numpy(drawn.rows)]
        levels, eps = torch.from_numpy(drawn.steps).to(x.device), torch.from_numpy(drawn.noise).to(x.device)
        told = self._told(drawn)

        def ask(sample: Tensor, timestep: Tensor) -> Tensor:
            with self._accelerator.autocast():
                given: Tensor = unet(sample.contiguous(memory_format=torch.channels_last), timestep, **told).sample
            return given

        return self._objective.loss(ask, self._backbone, x, levels, eps)

    def _told(self, drawn: _schedule.Draw) -> dict[str, Tensor]:
        """The images' labels, some of them left out, where the network learns from labels."""
        if self._labels is None:
            return {}
        labels = self._labels[torch.from_numpy(drawn.rows)]
        left_out = torch.from_numpy(drawn.chances < self.recipe.label_dropout).to(labels.device)
        return {"class_labels": labels.masked_fill(left_out, self._backbone.classes)}

    @torch.no_grad()
    def _last_loss(self) -> float:
        """Loss of some images of the last update, with the weights as they are now."""
        some = range(max(0, self.seen - CHECK_IMAGES), self.seen)
        return float(self._loss(self._accelerator.unwrap_model(self._unet), some))

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in the network's place."""
        self._ema.store(self._parameters)
        self._ema.copy_to(self._parameters)
        try:
            yield
        finally:
            self._ema.restore(self._parameters)

    def _gathered(self, value: int) -> list[int]:
        """A whole number of every process."""
        here = torch.tensor([value], device=self._accelerator.device)
        found: list[int] = self._accelerator.gather(here).tolist()
        return found

    def _share(self) -> range:
        """This process's part of the next batch's image numbers; the last batch may be smaller."""
        end = min(self.seen + self.recipe.batch, self.recipe.images)
        processes, mine = self._accelerator.num_processes, self._accelerator.process_index
        cuts = [self.seen + (end - self.seen) * k // processes for k in range(processes + 1)]
        return range(cuts[mine], cuts[mine + 1])

    def _set_rate(self) -> None:
        self.lr = self.recipe.lr * _schedule.rate(self.seen, self.recipe.warmup, self.recipe.images)
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr


def network(
    side: int, channels: int, widths: tuple[int, ...] | None, layers: int | None, outputs: int = 1, classes: int = 0
) -> UNet2DModel:
    """A U-Net for images of this side; by default levels are halved down to 4 pixels (or to an odd side).

    Args:
        outputs: channels that it gives for each that it takes.
        classes: how many classes it can be told.
    """
    widths = widths or default_widths(side)
    sides = [side // 2**k for k in range(len(widths))]
    attended = [s <= ATTENTION_UP_TO and s < side for s in sides]
    return UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=outputs * channels,
        layers_per_block=layers or (1 if side <= 16 else 2),
        block_out_channels=widths,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attended),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)),
        attention_head_dim=None,
        norm_num_groups=_groups(widths),
        num_class_embeds=classes or None,
    )


def default_widths(side: int) -> tuple[int, ...]:
    """Channels of each level: 32, 64 for 8 pixels; from 64 doubling once for larger images."""
    levels, rest = 1, side
    while rest % 2 == 0 and rest > 4:
        levels, rest = levels + 1, rest // 2
    first = 32 if side <= 16 else 64
    return (first, *[2 * first] * (levels - 1))


def _groups(widths: tuple[int, ...]) -> int:
    """The largest usual group count that divides every width."""
    return next(g for g in (32, 16, 8, 4, 2, 1) if all(w % g == 0 and w // g > 1 for w in widths) or g == 1)

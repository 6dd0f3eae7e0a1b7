"""Pixel-space U-Nets of diffusers (`UNet2DModel`): own runs, and DDPM or DDIM pipelines."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from numpy.typing import NDArray
from torch import Tensor, nn

from twofold.backbones import _resizing, _taps
from twofold.backbones._taps import Place
from twofold.backbones.base import BlockName, DiffusionBackbone, ModelName, Placement, pipeline_folder
from twofold.errors import BadModel, BadSetting
from twofold.records import Block, number_text

SCHEMES = ("run", "diffusers")
PIPELINES = ("DDPMPipeline", "DDIMPipeline")

UNTRAINED_SEED = 0


@final
class UNetBackbone(DiffusionBackbone):
    """A `UNet2DModel` with its noise schedule.

    Blocks are numbered as in P1 (PAPER.md 1.3): the first convolution, every encoder layer and down-sampling, the
    middle, every decoder layer; a decoder level's up-sampling belongs to its last layer.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: DDPMScheduler,
        placement: Placement,
        *,
        name: str,
        identity: str = "",
    ) -> None:
        self.unet = unet
        self.scheduler = scheduler
        self.placement = placement
        self.name = name
        self.identity = identity
        self.image_size = int(unet.config.sample_size)
        self.channels = int(unet.config.in_channels)
        self.preprocessing = {
            "size": self.image_size,
            "resize": "box halving, bicubic, centre crop",
            "range": "-1..1",
            "channels": "rgb" if self.channels == 3 else "grey",
        }
        self.sample_shape = (self.channels, self.image_size, self.image_size)
        self.schedule = dict(scheduler.config)
        # Kept in double precision: sqrt(1 - abar) at t = 0 loses digits in single.
        betas = torch.as_tensor(scheduler.betas, dtype=torch.float64)
        self.signal = torch.cumprod(1 - betas, 0)
        self.length = len(betas)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Measured on a copy without weights, where a forward pass only passes shapes on."""
        with torch.device("meta"):
            shadow = UNet2DModel.from_config(self.unet.config).eval()
        x = torch.empty(1, self.channels, self.image_size, self.image_size, device="meta")
        step = torch.zeros(1, dtype=torch.long, device="meta")
        return _taps.survey(places(shadow), lambda: shadow(x, step))

    @cached_property
    def _places(self) -> dict[str, Place]:
        return {place.name: place for place in places(self.unet)}

    @torch.no_grad()
    def preprocess(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """uint8 [B, 3, H, W] -> [-1, 1], x / 127.5 - 1; a network of one channel sees the mean of the three."""
        pixels = _resizing.square(images, self.image_size).to(self.placement.device).float()
        if self.channels == 1:
            pixels = pixels.mean(1, keepdim=True)
        return pixels / 127.5 - 1

    @torch.no_grad()
    def features(
        self,
        x: Tensor,
        t: float | Tensor | None,
        blocks: Sequence[BlockName],
        noise: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[BlockName, Tensor]:
        """See `Backbone.features`; t is a whole step 0..T-1."""
        if t is None:
            raise BadSetting(f"{self.name} is a diffusion model: it reads features at a noise step. Give --t.")
        wanted = [self._places[self.block(b).name] for b in blocks]
        if not wanted:
            return {}
        x = x if noise is None else self.noised(x, t, noise)
        steps = self._steps(t, len(x))
        found = _taps.read(wanted, lambda: self.unet(self._input(x), steps, class_labels=labels))
        return dict(zip(blocks, found, strict=True))

    @torch.no_grad()
    def denoise(self, x_t: Tensor, t: float | Tensor) -> Tensor:
        """Estimate of x0, from whichever of epsilon, v or x0 the network predicts (Ho et al. 2020, eq. 15)."""
        steps = self._steps(t, len(x_t))
        predicted = self.unet(self._input(x_t), steps).sample.float()[:, : self.channels]
        signal = self._per_image(self.signal.sqrt(), steps)
        spread = self._per_image((1 - self.signal).sqrt(), steps)
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            predicted = (x_t - spread * predicted) / signal
        elif kind == "v_prediction":
            predicted = signal * x_t - spread * predicted
        clean: Tensor = predicted
        return clean

    def noised(self, x: Tensor, t: float | Tensor, noise: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) x + sqrt(1 - abar_t) noise (Ho et al. 2020, eq. 4)."""
        steps = self._steps(t, len(x))
        signal = self._per_image(self.signal.sqrt(), steps)
        spread = self._per_image((1 - self.signal).sqrt(), steps)
        return signal * x + spread * noise.to(x.device)

    def pixels(self, x: Tensor) -> NDArray[np.uint8]:
        """[-1, 1] -> 0..255, rounded; values outside are clipped."""
        grey_or_colour = ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
        if self.channels == 1:
            return grey_or_colour[:, 0].numpy()
        return grey_or_colour.permute(0, 2, 3, 1).numpy()

    def sigma(self, t: float | None) -> float | None:
        """sqrt((1 - abar_t) / abar_t)."""
        return None if t is None else float(self._sigmas[int(t)])

    def step(self, sigma: float) -> float:
        """The step whose sigma is nearest in ratio."""
        if not 0 < sigma < math.inf:
            raise BadSetting(f"sigma must be above 0 and finite, not {number_text(sigma)}.")
        return float((self._sigmas.log() - torch.tensor(sigma, dtype=torch.float64).log()).abs().argmin())

    def check_step(self, t: float | None) -> None:
        """Whole numbers 0..T-1."""
        last = self.length - 1
        if t is None or not float(t).is_integer() or not 0 <= t <= last:
            shown = "none" if t is None else number_text(t)
            raise BadSetting(f"t = {shown} is not a noise step of {self.name}: whole numbers 0 to {last} are allowed.")

    @cached_property
    def _sigmas(self) -> Tensor:
        return ((1 - self.signal) / self.signal).sqrt()

    def _steps(self, t: float | Tensor, count: int) -> Tensor:
        """Native steps as int64 [B] on the device."""
        steps = torch.as_tensor(t, device=self.placement.device)
        for extreme in {float(steps.min()), float(steps.max())} if steps.device.type == "cpu" else ():
            self.check_step(extreme)
        return steps.expand(count).long()

    def _per_image(self, values: Tensor, steps: Tensor) -> Tensor:
        return values.to(steps.device)[steps].float().view(-1, 1, 1, 1)

    def _input(self, x: Tensor) -> Tensor:
        return x.to(dtype=self.placement.dtype, memory_format=torch.channels_last)


def places(unet: UNet2DModel) -> list[Place]:
    """The modules whose outputs are the blocks b = 1, 2, ..., in order of the forward pass."""
    found = [Place("conv_in", unet.conv_in)]
    for i, level in enumerate(unet.down_blocks):
        found += [Place(f"down.{i}.{j}", layer) for j, layer in enumerate(_layers(level))]
        found += [Place(f"down.{i}.downsample", m) for m in (getattr(level, "downsamplers", None) or ())[-1:]]
    if unet.mid_block is not None:
        found.append(Place("mid", unet.mid_block))
    for i, level in enumerate(unet.up_blocks):
        layers = _layers(level)
        resampled = getattr(level, "upsamplers", None) or ()
        ends = [*layers[:-1], (resampled or layers[-1:])[-1]]
        found += [Place(f"up.{i}.{j}", layer) for j, layer in enumerate(ends)]
    return found


def _layers(level: nn.Module) -> list[nn.Module]:
    """The last module of each layer of a level: its attention where it has one, else its ResBlock."""
    modules: Any = getattr(level, "attentions", None) or level.resnets
    return list(modules)


def build(name: ModelName, placement: Placement) -> UNetBackbone:
    """Load a pipeline folder; with `?untrained` its network with fresh random weights of a fixed seed."""
    folder = pipeline_folder(name)
    unet = _untrained(folder, placement.dtype) if name.untrained else _trained(folder, placement.dtype)
    scheduler = _scheduler(folder)
    unet.to(device=placement.device, memory_format=torch.channels_last)
    identity = _identity(folder, name.untrained)
    return UNetBackbone(unet.eval().requires_grad_(False), scheduler, placement, name=str(name), identity=identity)


def _trained(folder: Path, dtype: torch.dtype) -> UNet2DModel:
    if not any((folder / "unet").glob("*.safetensors")):
        raise BadModel(f"{folder / 'unet'} has no .safetensors weights. Save the model with safe_serialization=True.")
    try:
        return UNet2DModel.from_pretrained(
            folder / "unet", use_safetensors=True, local_files_only=True, torch_dtype=dtype
        )
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise BadModel(
            f"The weights in {folder / 'unet'} cannot be read: {reason} Save or train the model again."
        ) from error


def _untrained(folder: Path, dtype: torch.dtype) -> UNet2DModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(UNTRAINED_SEED)
        unet = UNet2DModel.from_config(_settings(folder / "unet"))
    for parameter in unet.parameters():
        parameter.data = parameter.data.to(dtype)
    return unet


def _settings(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = UNet2DModel.load_config(folder, local_files_only=True)
        return content
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise BadModel(f"{folder / 'config.json'} cannot be read: {reason} Save or train the model again.") from error


def _scheduler(folder: Path) -> DDPMScheduler:
    try:
        return DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise BadModel(
            f"The schedule in {folder / 'scheduler'} cannot be read: {reason} Save the model again."
        ) from error


def _identity(folder: Path, untrained: bool) -> str:
    """Hash of the network's configuration, its schedule, and its weights or the seed they were drawn with."""
    told = hashlib.sha256()
    for part in ("unet", "scheduler"):
        for file in sorted((folder / part).glob("*.json")):
            content = json.loads(file.read_text(encoding="utf-8"))
            # Names that begin with an underscore are the saving library's notes (its version, the path).
            kept = {k: v for k, v in content.items() if not k.startswith("_")} if isinstance(content, dict) else content
            told.update(json.dumps(kept, sort_keys=True).encode())
    if untrained:
        told.update(f"untrained {UNTRAINED_SEED}".encode())
    else:
        for file in sorted((folder / "unet").glob("*.safetensors")):
            with file.open("rb") as content:
                told.update(hashlib.file_digest(content, "sha256").digest())
    return told.hexdigest()[:16]

"""One diffusion backbone for every family: a network, its places, its noise process and its codec."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twofold.backbones import _taps
from twofold.backbones._codecs import Codec
from twofold.backbones._processes import Process
from twofold.backbones._taps import Place
from twofold.backbones.base import BlockName, DiffusionBackbone, Placement
from twofold.errors import BadSetting
from twofold.pooling import as_map
from twofold.records import Block, Cost

Arguments = Callable[[Tensor, Tensor, Tensor | None], Mapping[str, Any]]
Prediction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Parts:
    """What tells one family from another.

    Attributes:
        network: a model of diffusers; called with `arguments` it gives a tuple whose first entry is its prediction.
        places: its blocks, in order of the forward pass.
        arguments: (noised images, native steps [B], class numbers [B] or None) -> what the network is called with.
        process: how noise is added.
        prediction: from the network's prediction to the clean image, see `_processes`.
        codec: between images and what is denoised.
        schedule: settings of the noise schedule in the words of diffusers' schedulers.
        classes: how many classes the network can be told; 0 where it cannot.
        class_names: what they are called, where the folder says.
        pipeline: makes the diffusers pipeline to save.
        compiled: submodules that `--compile` compiles.
    """

    network: nn.Module
    places: list[Place]
    arguments: Arguments
    process: Process
    prediction: Prediction
    codec: Codec
    schedule: dict[str, Any]
    classes: int = 0
    class_names: tuple[str, ...] = ()
    pipeline: Callable[[], Any] | None = None
    compiled: Sequence[nn.Module] = field(default=())


@final
class DiffusionNetwork(DiffusionBackbone):
    """The members of the room that denoise are this class with their own `Parts`."""

    def __init__(self, parts: Parts, placement: Placement, *, name: str, identity: str = "") -> None:
        self.parts = parts
        self.network = parts.network
        self.placement = placement
        self.name = name
        self.identity = identity
        self.process = parts.process
        self.classes = parts.classes
        self.class_names = parts.class_names
        self.schedule = parts.schedule
        self.sample_shape = parts.codec.shape
        self.image_size = parts.codec.image_size
        self.preprocessing = parts.codec.settings
        self._places = {place.name: place for place in parts.places}
        if placement.compile:
            # The hooks sit outside of these modules, so an early stop never leaves compiled code half way.
            _taps.compile_each(parts.compiled)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Measured in a forward pass of shapes alone."""
        return _taps.survey(self.parts.places, self.network, self._one())

    @property
    def parameters(self) -> int:
        """See `Backbone.parameters`; of a latent model without its autoencoder."""
        return sum(weights.numel() for weights in self.network.parameters())

    def cost(self, block: BlockName) -> Cost:
        """See `Backbone.cost`."""
        run = _taps.without_weights(self.network, self._one())
        return _taps.cost(lambda: _taps.read([self._places[self.block(block).name]], run))

    def _one(self) -> Mapping[str, Any]:
        """What the network is called with for one image, as shapes."""
        x = torch.empty(1, *self.sample_shape, device="meta", dtype=self.placement.dtype)
        return self._arguments(x, torch.full((1,), self.process.step(1.0), device="meta"), None)

    @torch.no_grad()
    def preprocess(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """See `Backbone.preprocess`."""
        return self.parts.codec.encode(images, self.placement.device)

    @torch.no_grad()
    def features(
        self,
        x: Tensor,
        t: float | Tensor | None,
        blocks: Sequence[BlockName],
        noise: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[BlockName, Tensor]:
        """See `Backbone.features`."""
        return self.maps(x, t, blocks, noise, labels)

    def maps(
        self,
        x: Tensor,
        t: float | Tensor | None,
        blocks: Sequence[BlockName],
        noise: Tensor | None = None,
        labels: Tensor | None = None,
        added: Mapping[int, Tensor] | None = None,
    ) -> dict[BlockName, Tensor]:
        """See `DiffusionBackbone.maps`."""
        if t is None:
            raise BadSetting(f"{self.name} is a diffusion model: it reads features at a noise step. Give --t.")
        wanted = [self._places[self.block(b).name] for b in blocks]
        if not wanted:
            return {}
        x = x if noise is None else self.noised(x, t, noise)
        steps = self.native(t, len(x))
        extra = [(self._places[self.block(b).name], map_) for b, map_ in (added or {}).items()]
        # First the sums are formed, then they are read.
        with _taps.adding(extra):
            found = _taps.read(wanted, lambda: self._predict(x, steps, labels))
        return dict(zip(blocks, found, strict=True))

    def weights(self, block: BlockName) -> dict[str, nn.Parameter]:
        """See `DiffusionBackbone.weights`."""
        place = self._places[self.block(block).name]
        run = _taps.without_weights(self.network, self._one())
        return _taps.touched(self.network, lambda: _taps.read([place], run))

    def recompute(self) -> None:
        """See `DiffusionBackbone.recompute`."""
        network: Any = self.network
        try:
            network.enable_gradient_checkpointing()
        except (AttributeError, ValueError) as error:
            raise BadSetting(f"{self.name} has no gradient checkpointing. Leave --checkpointing out.") from error

    @torch.no_grad()
    def estimate(self, x_t: Tensor, t: float | Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """See `DiffusionBackbone.estimate`."""
        steps, channels = self.native(t, len(x_t)), self.sample_shape[0]
        predicted = as_map(self._predict(x_t, steps, labels)).float()
        clean = self.parts.prediction(x_t, predicted[:, :channels], *self.coefficients(steps))
        return clean, predicted[:, channels:] if predicted.shape[1] == 2 * channels else None

    def pixels(self, x: Tensor) -> NDArray[np.uint8]:
        """See `DiffusionBackbone.pixels`."""
        return self.parts.codec.decode(x)

    def pipeline(self) -> Any:
        """See `DiffusionBackbone.pipeline`."""
        return self.parts.pipeline() if self.parts.pipeline else None

    def _predict(self, x_t: Tensor, steps: Tensor, labels: Tensor | None) -> Tensor:
        predicted: Tensor = self.network(**self._arguments(x_t, steps, labels))[0]
        return predicted

    def _arguments(self, x_t: Tensor, steps: Tensor, labels: Tensor | None) -> Mapping[str, Any]:
        if labels is not None and not self.classes:
            raise BadSetting(f"{self.name} knows no classes, so a label means nothing to it. Leave --label out.")
        # Looking into labels on a GPU would wait for it.
        if (
            labels is not None
            and labels.device.type == "cpu"
            and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes
        ):
            raise BadSetting(f"A label of {self.name} must be 0 to {self.classes - 1}.")
        x_t = x_t.to(dtype=self.placement.dtype, memory_format=torch.channels_last)
        told = None if labels is None else labels.to(x_t.device)
        return {**self.parts.arguments(x_t, steps, told), "return_dict": False}

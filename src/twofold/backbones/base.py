"""What every backbone promises, and how a MODEL string becomes one.

run:DIR | DIR             a run of `twofold pretrain`
adm:FILE.pt               a state dict of OpenAI's guided-diffusion
diffusers:DIR_OR_HUB_ID   a diffusers pipeline folder
timm:NAME[@FILE]          an encoder of timm, with its own weights or those of FILE
torchvision:NAME[@FILE]   an encoder of torchvision
inception[:FILE]          the network of the FID, as torch-fidelity has it
pixels                    the images themselves, the control
...?untrained             the same network with random weights, the other control
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from twofold import registry
from twofold.backbones import _memory
from twofold.backbones._naming import ARGUMENT_FREE as ARGUMENT_FREE
from twofold.backbones._naming import named as named
from twofold.backbones._naming import parse as parse
from twofold.backbones._naming import schemes as schemes
from twofold.backbones._placement import PRECISIONS as PRECISIONS
from twofold.backbones._placement import Placement as Placement
from twofold.backbones._placement import nowhere
from twofold.backbones._placement import place as place
from twofold.errors import BadSetting, unknown
from twofold.records import Block, Cost, number_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from twofold.backbones._processes import Process

BlockName = int | str
MODEL_HELP = (
    "network to read: run:DIR, adm:FILE.pt, diffusers:DIR_OR_HUB_ID, timm:NAME[@FILE], torchvision:NAME[@FILE], "
    "inception[:FILE], pixels; ?untrained behind it for random weights"
)


class Backbone(ABC):
    """Images in, features out.

    Attributes:
        name: the MODEL string it was loaded from.
        identity: hash of weights and configuration; features of equal identity are equal.
        preprocessing: how images are brought to the network, as plain values (part of a store's key).
        image_size: side of the images the network sees.
    """

    name: str
    identity: str
    preprocessing: dict[str, Any]
    image_size: int
    placement: Placement

    @property
    def fingerprint(self) -> str:
        """Hash of everything that outputs depend on: identity and preprocessing (which holds an autoencoder's hash)."""
        told = json.dumps([self.identity, self.preprocessing], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    @abstractmethod
    def blocks(self) -> tuple[Block, ...]:
        """Where features can be read, in order of the forward pass, numbered from 1."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """How many weights the network has, all of them; 0 of the images themselves."""

    @abstractmethod
    def cost(self, block: BlockName) -> Cost:
        """What one image's pass up to a block takes, measured in a pass of shapes alone."""

    @abstractmethod
    def preprocess(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Bring raw images to the network's size and range.

        Args:
            images: uint8 [B, 3, H, W], or a sequence of B images [3, H, W] of different sizes.

        Returns:
            float [B, C, h, w] on the backbone's device.
        """

    @abstractmethod
    def features(
        self,
        x: Tensor,
        t: float | Tensor | None,
        blocks: Sequence[BlockName],
        noise: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[BlockName, Tensor]:
        """One forward pass, stopped after the deepest block asked for.

        Args:
            x: preprocessed images, float [B, C, h, w].
            t: noise step in the backbone's own unit, a number or [B]; None for encoders without noise.
            blocks: numbers or names; the result's keys are as asked.
            noise: standard normal noise like `x`; None: `x` is taken as already noised.
            labels: int64 [B] for class-conditional networks.

        Returns:
            each block's map [B, C, h, w] or tokens [B, L, C], in the backbone's dtype.
        """

    def sigma(self, t: float | None) -> float | None:
        """Noise-to-signal ratio of a native step; None for encoders without noise."""
        return None

    def step(self, sigma: float) -> float:
        """The native step nearest to a noise-to-signal ratio, the inverse of `sigma`."""
        raise BadSetting(f"{self.name} reads clean images, so it has no noise step. Leave --t and --sigma out.")

    def check_step(self, t: float | None) -> None:
        """Raise `BadSetting` where `t` is not a step of this backbone."""
        if t is not None:
            raise BadSetting(f"{self.name} reads clean images, so t = {number_text(t)} means nothing. Leave --t out.")

    @cached_property
    def _by_name(self) -> dict[BlockName, Block]:
        return {key: b for b in self.blocks for key in (b.number, b.name)}

    def block(self, asked: BlockName) -> Block:
        """The block of a number or name; an unknown one is an error that says the range."""
        key = int(asked) if isinstance(asked, str) and asked.isdecimal() and len(asked) < 10 else asked
        if key in self._by_name:
            return self._by_name[key]
        if isinstance(key, int):
            raise BadSetting(
                f"{self.name} has no block {key}: its blocks are 1 to {len(self.blocks)}. "
                f"`twofold blocks {self.name}` lists them."
            )
        raise unknown(f"block in {self.name}", key, [b.name for b in self.blocks])


class DiffusionBackbone(Backbone):
    """A backbone that was trained to remove noise, and can therefore generate.

    Attributes:
        process: how noise is added at each native step.
        schedule: the settings of the noise schedule, in the words of diffusers' schedulers.
        sample_shape: (C, h, w) of what the network denoises.
        classes: how many classes the network can be told; 0 where it cannot.
        class_names: what they are called, where its folder says; else empty.
    """

    process: Process
    schedule: dict[str, Any]
    sample_shape: tuple[int, int, int]
    classes: int
    class_names: tuple[str, ...] = ()

    @abstractmethod
    def maps(
        self,
        x: Tensor,
        t: float | Tensor | None,
        blocks: Sequence[BlockName],
        noise: Tensor | None = None,
        labels: Tensor | None = None,
        added: Mapping[int, Tensor] | None = None,
    ) -> dict[BlockName, Tensor]:
        """As `features`, but gradients flow: to weights that want them, and to what is added on the way.

        Args:
            x, t, blocks, noise, labels: see `Backbone.features`.
            added: maps [B, C, h, w] that are added to the outputs of blocks, and so go on to all that reads these.
        """

    @abstractmethod
    def weights(self, block: BlockName) -> dict[str, nn.Parameter]:
        """The network's weights that a pass up to a block reads, by name."""

    @abstractmethod
    def recompute(self) -> None:
        """From now on make activations again in the backward pass instead of keeping them: less memory, same numbers.

        Raises:
            BadSetting: the network cannot.
        """

    @abstractmethod
    def estimate(self, x_t: Tensor, t: float | Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The clean image in a noised one [B, C, h, w], and where in its range the variance of a step lies.

        The second is what networks with a learned variance say, [B, C, h, w] from -1 to 1 (Nichol and Dhariwal 2021,
        eq. 15); None of others.
        """

    def denoise(self, x_t: Tensor, t: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """Estimate the clean image of a noised one: [B, C, h, w] -> [B, C, h, w]."""
        return self.estimate(x_t, t, labels)[0]

    @abstractmethod
    def pixels(self, x: Tensor) -> NDArray[np.uint8]:
        """The inverse of `preprocess`: [B, C, h, w] -> uint8 [B, H, W] for grey images, [B, H, W, 3] for colour."""

    @abstractmethod
    def pipeline(self) -> Any:
        """A diffusers pipeline of this network that `save_pretrained` writes; None where its folder is one already."""

    def noised(self, x: Tensor, t: float | Tensor, noise: Tensor) -> Tensor:
        """The noised image that the network sees at step t: signal(t) x + spread(t) noise."""
        signal, spread = self.coefficients(self.native(t, len(x)))
        return signal * x + spread * noise.to(x.device)

    def coefficients(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """signal(t) and spread(t) of native steps [B], float32 [B, 1, 1, 1]."""
        signal, spread = self.process.coefficients(steps)
        return signal.float().view(-1, 1, 1, 1), spread.float().view(-1, 1, 1, 1)

    def native(self, t: float | Tensor, count: int) -> Tensor:
        """Native steps [B] on the device; a plain number is held against the range on every device."""
        import torch

        if not isinstance(t, torch.Tensor):
            self.check_step(t)  # as it is: in single precision the ends of a range may lie outside of it
        # Looking into a tensor on a GPU would wait for it.
        elif t.device.type == "cpu":
            for extreme in {float(t.min()), float(t.max())}:
                self.check_step(extreme)
        steps = torch.as_tensor(t)
        return steps.to(self.placement.device).expand(count)

    def sigma(self, t: float | None) -> float | None:
        """See `Backbone.sigma`."""
        return None if t is None else self.process.sigma(t)

    def step(self, sigma: float) -> float:
        """See `Backbone.step`."""
        return self.process.step(sigma)

    def check_step(self, t: float | None) -> None:
        """Raise `BadSetting` where `t` is not a step of this backbone."""
        if t is None or not self.process.holds(t):
            shown = "none" if t is None else number_text(t)
            raise BadSetting(f"t = {shown} is not a noise step of {self.name}: {self.process.allowed} are allowed.")


def load(
    model: str,
    *,
    device: str | None = None,
    precision: str = "auto",
    compile: bool = False,
    weightless: bool = False,
) -> Backbone:
    """Load the backbone that a MODEL string names.

    Args:
        model: see the head of this file.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; None takes a GPU where there is one.
        precision: `auto` (bf16 where the hardware multiplies it fast), `fp32`, `bf16`, `fp16`.
        compile: compile the network's inner blocks with torch.compile.
        weightless: read no weights, for the shapes alone; nothing can be computed with it.

    Raises:
        UnknownName, BadModel, BadSetting: before any weights are read.
    """
    name, member = named(model)
    build = registry.find("backbones", member).build
    where = nowhere() if weightless else place(device, precision, compile)
    backbone: Backbone = build(name, where)
    if where.device.type == "cpu":
        # Not before: what reading a file frees on the way had better go back.
        _memory.keep()
    return backbone

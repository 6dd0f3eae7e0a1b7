"""Between images and what a diffusion network denoises: pixels, or the latents of an autoencoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.backbones import _resizing


class Codec(ABC):
    """Images to network input and back.

    Attributes:
        image_size: side of the images.
        shape: (C, h, w) of what the network denoises.
        settings: how, as plain values.
    """

    image_size: int
    shape: tuple[int, int, int]
    settings: dict[str, Any]

    @abstractmethod
    def encode(self, images: Tensor | Sequence[Tensor], device: torch.device) -> Tensor:
        """uint8 images [B, 3, H, W], or a sequence of [3, H, W] -> float32 [B, C, h, w]."""

    @abstractmethod
    def decode(self, x: Tensor) -> NDArray[np.uint8]:
        """The inverse: uint8 [B, H, W] for grey images, [B, H, W, 3] for colour."""


@final
class Pixels(Codec):
    """x / 127.5 - 1; a network of one channel sees the mean of the three."""

    def __init__(self, image_size: int, channels: int) -> None:
        self.image_size = image_size
        self.shape = (channels, image_size, image_size)
        self.settings = {
            "size": image_size,
            "resize": _resizing.RULE,
            "range": "-1..1",
            "channels": "rgb" if channels == 3 else "grey",
        }

    def encode(self, images: Tensor | Sequence[Tensor], device: torch.device) -> Tensor:
        """See `Codec.encode`."""
        pixels = _resizing.square(images, self.image_size).to(device).float()
        if self.shape[0] == 1:
            pixels = pixels.mean(1, keepdim=True)
        return pixels / 127.5 - 1

    def decode(self, x: Tensor) -> NDArray[np.uint8]:
        """Rounded; values outside are clipped."""
        return to_bytes(x)


@final
class Latents(Codec):
    """The means of an autoencoder's latents, shifted and scaled to unit size (Rombach et al. 2022, appendix G).

    Args:
        autoencoder: diffusers' `AutoencoderKL`.
        side: of the latents.
    """

    def __init__(self, autoencoder: Any, side: int, identity: str) -> None:
        config = autoencoder.config
        self.autoencoder = autoencoder
        self.scale = float(config.scaling_factor)
        self.shift = float(getattr(config, "shift_factor", None) or 0.0)
        self.image_size = side * 2 ** (len(config.block_out_channels) - 1)
        self.shape = (int(config.latent_channels), side, side)
        self.settings = {
            "size": self.image_size,
            "resize": _resizing.RULE,
            "range": "latents",
            "scale": self.scale,
            "shift": self.shift,
            "autoencoder": identity,
        }

    @torch.no_grad()
    def encode(self, images: Tensor | Sequence[Tensor], device: torch.device) -> Tensor:
        """See `Codec.encode`."""
        pixels = _resizing.square(images, self.image_size).to(device)
        x = (pixels.float() / 127.5 - 1).to(self.autoencoder.dtype)
        latents: Tensor = self.autoencoder.encode(x).latent_dist.mode()
        return (latents.float() - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, x: Tensor) -> NDArray[np.uint8]:
        """Through the autoencoder's decoder."""
        latents = (x.float() / self.scale + self.shift).to(self.autoencoder.dtype)
        return to_bytes(self.autoencoder.decode(latents).sample)


@final
class Packed(Codec):
    """Latents in packs of 2 x 2: four times the channels at half the side, as Flux denoises them."""

    def __init__(self, latents: Latents) -> None:
        channels, side, _ = latents.shape
        self.latents = latents
        self.image_size = latents.image_size
        self.shape = (4 * channels, side // 2, side // 2)
        self.settings = {**latents.settings, "packs": 2}

    def encode(self, images: Tensor | Sequence[Tensor], device: torch.device) -> Tensor:
        """See `Codec.encode`."""
        return torch.nn.functional.pixel_unshuffle(self.latents.encode(images, device), 2)

    def decode(self, x: Tensor) -> NDArray[np.uint8]:
        """See `Codec.decode`."""
        return self.latents.decode(torch.nn.functional.pixel_shuffle(x, 2))


def to_bytes(x: Tensor) -> NDArray[np.uint8]:
    """[-1, 1] -> 0..255: [B, C, H, W] -> uint8 [B, H, W] for one channel, [B, H, W, 3] for three."""
    images = ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    return images[:, 0].numpy() if images.shape[1] == 1 else images.permute(0, 2, 3, 1).numpy()

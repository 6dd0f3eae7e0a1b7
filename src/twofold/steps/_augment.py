"""Changed copies of training images, and a network that is told what was changed, so that none of it is generated.

Karras et al. 2022 (arXiv 2206.00364), appendix F.2 and table 6: geometric changes, each one with a chance of its own,
and a vector that says which. A linear layer without bias brings the vector into the network; of a vector of zeros it
makes nothing. An unchanged image has that vector, and so has all reading and sampling: the layer is not saved, and
what is saved is a network as it would be without augmentation.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from twofold import noise

WAYS = ("none", "flip", "edm")
CHANCE = 0.12  # of each change but the horizontal flip, which is a coin's
SCALE, AXES, SHIFT = 0.2, 0.2, 0.125  # deviations: of log2 of both scales, and of the shift as a share of the side
# Where in an image's vector each change stands.
FLIPS, ZOOM, TURN, STRETCH, MOVE = slice(0, 2), 2, slice(3, 5), slice(5, 7), slice(7, 9)
NUMBERS = 9


def changes(way: str, seed: int, numbers: range) -> NDArray[np.float32]:
    """What is changed in each image, float32 [B, 9], a function of (seed, image number) alone; zeros: nothing."""
    found = np.zeros((len(numbers), NUMBERS), dtype=np.float32)
    for row, number in zip(found, numbers, strict=True):
        chance = noise.generator(seed, number, purpose=noise.AUGMENTATION)
        row[0] = chance.random() < 0.5
        if way == "edm":
            _draw(row, chance)
    return found


def _draw(row: NDArray[np.float32], chance: np.random.Generator) -> None:
    happens = chance.random(5) < CHANCE
    sizes, (turn, axis) = chance.standard_normal(4), chance.uniform(-np.pi, np.pi, 2)
    row[1] = happens[0]
    row[ZOOM] = happens[1] * sizes[0]
    # As cosine - 1 and sine, so that no turn is zero and a whole turn is none.
    row[TURN] = happens[2] * np.array([np.cos(turn) - 1, np.sin(turn)])
    # Of the double angle: an axis is the same after half a turn, and squeezing it is stretching the other.
    row[STRETCH] = happens[3] * sizes[1] * np.array([np.cos(axis), np.sin(axis)])
    row[MOVE] = happens[4] * sizes[2:]


def changed(x: Tensor, vectors: NDArray[np.float32]) -> Tensor:
    """Images -1..1 [B, C, h, w] after their changes [B, 9]; those without any, and flips alone, to the bit."""
    for k, axis in ((0, -1), (1, -2)):
        flips = torch.from_numpy(vectors[:, k] > 0).to(x.device)
        x = torch.where(flips.view(-1, 1, 1, 1), x.flip(axis), x)
    warped = vectors[:, FLIPS.stop :].any(1)
    if not warped.any():
        return x
    some = torch.from_numpy(np.flatnonzero(warped)).to(x.device)
    theta = torch.from_numpy(backwards(vectors[warped])).to(x)
    grid = functional.affine_grid(theta, list(x[some].shape), align_corners=False)
    moved = functional.grid_sample(x[some], grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return x.index_copy(0, some, moved.clamp(-1, 1))


def backwards(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """From places in the changed image to places in the given one, in units of half a side: float64 [B, 2, 3]."""
    v = vectors.astype(np.float64)
    turned = _rotation(np.arctan2(v[:, 4], v[:, 3] + 1))
    axes = _rotation(np.arctan2(v[:, 6], v[:, 5]) / 2)
    size = 2 ** (AXES * np.hypot(v[:, 5], v[:, 6]))
    stretched = axes * np.stack([size, 1 / size], -1)[:, None, :] @ axes.swapaxes(1, 2)
    forwards = 2 ** (SCALE * v[:, ZOOM])[:, None, None] * (turned @ stretched)
    linear = np.linalg.inv(forwards)
    shift = -linear @ (2 * SHIFT * v[:, MOVE, None])
    return np.concatenate([linear, shift], -1)


def _rotation(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)


@final
class Told(nn.Module):
    """What stands in a U-Net's place for class embeddings while it is told of changes: classes, and changes."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.classes: nn.Module | None = unet.class_embedding
        weight = unet.time_embedding.linear_2.weight
        self.changes = nn.Linear(NUMBERS, weight.shape[0], bias=False, device=weight.device)
        nn.init.zeros_(self.changes.weight)

    def forward(self, told: Tensor) -> Tensor:
        """Embedding [B, D] of a class's number and changes, float [B, 1 + 9]; see `together`."""
        found: Tensor = self.changes(told[:, 1:])
        return found if self.classes is None else found + self.classes(told[:, 0].long())


def together(labels: Tensor | None, vectors: NDArray[np.float32], device: torch.device) -> Tensor:
    """What `Told` takes: the class's number [B], if there are classes, and the changes [B, 9]."""
    done = torch.from_numpy(vectors).to(device)
    first = torch.zeros(len(done), 1, device=device) if labels is None else labels[:, None].float()
    return torch.cat([first, done], 1)

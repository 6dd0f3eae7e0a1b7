"""Averages of the weights over training, one for each half-life; the first is the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn


class Averages:
    """Exponential averages of the same weights.

    Attributes:
        half_lives: of each average, in images.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], half_lives: Sequence[int], batch: int) -> None:
        self.half_lives = tuple(half_lives)
        self._parameters = parameters
        # The half-life in images, as a decay an update; short runs warm up: (1 + k) / (10 + k).
        decays = [0.5 ** (batch / images) if images else 0.0 for images in half_lives]
        self._averages = [EMAModel(parameters, decay=decay, foreach=True) for decay in decays]

    def step(self) -> None:
        """Take the weights in, after an update."""
        for average in self._averages:
            average.step(self._parameters)

    @contextmanager
    def in_place(self, which: int = 0) -> Iterator[None]:
        """An average in the weights' place."""
        average = self._averages[which]
        average.store(self._parameters)
        average.copy_to(self._parameters)
        try:
            yield
        finally:
            average.restore(self._parameters)

    @property
    def tensors(self) -> list[Tensor]:
        """All that is kept."""
        return [tensor for average in self._averages for tensor in average.shadow_params]

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        first, *others = [average.state_dict() for average in self._averages]
        return {"ema": first, "more_ema": others}

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Continue from what `state` gave; a checkpoint of other half-lives is an error."""
        for average, kept in zip(self._averages, [state["ema"], *state.get("more_ema", [])], strict=True):
            average.load_state_dict(kept)
            average.to(device)

"""Reading a network's insides through public forward hooks, and stopping when the deepest one is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from twofold.records import Block


@dataclass(frozen=True)
class Place:
    """A module whose output is a block's features."""

    name: str
    module: nn.Module


class _DeepestReached(Exception):
    """Leaves the forward pass; carries nothing and never escapes `read`."""


def read(places: Sequence[Place], forward: Callable[[], object]) -> list[Tensor]:
    """Run `forward` until every place has given its output, and no further.

    Returns:
        the outputs, in the order of `places`.
    """
    found: dict[str, Tensor] = {}

    def keep(place: Place) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            found[place.name] = _tensor(output)
            if len(found) == len({p.name for p in places}):
                raise _DeepestReached

        return hook

    with hooked([(place.module, keep(place)) for place in places]), suppress(_DeepestReached):
        forward()
    return [found[place.name] for place in places]


@contextmanager
def hooked(hooks: Sequence[tuple[nn.Module, Callable[[nn.Module, object, object], None]]]) -> Iterator[None]:
    """Forward hooks for the length of a block; always removed."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def survey(places: Sequence[Place], forward: Callable[[], object]) -> tuple[Block, ...]:
    """Measure channels, size and share of the multiplications of each place in one whole forward pass.

    Cheap on the `meta` device, where nothing is computed: `forward` then only passes shapes on.
    """
    seen: dict[str, tuple[Tensor, int]] = {}
    with FlopCounterMode(display=False) as counter:

        def note(place: Place) -> Callable[[nn.Module, object, object], None]:
            def hook(_module: nn.Module, _inputs: object, output: object) -> None:
                seen[place.name] = (_tensor(output), counter.get_total_flops())

            return hook

        with hooked([(place.module, note(place)) for place in places]):
            forward()
    total = counter.get_total_flops()
    return tuple(
        Block(k, place.name, *_extent(seen[place.name][0]), share=seen[place.name][1] / total)
        for k, place in enumerate(places, start=1)
    )


def _tensor(output: object) -> Tensor:
    """The features in a module's output: itself, or the first of a tuple."""
    first = output[0] if isinstance(output, tuple) else output
    assert isinstance(first, torch.Tensor)
    return first


def _extent(features: Tensor) -> tuple[int, int]:
    """Channels and side: of a map [B, C, h, w], or of tokens [B, L, C] as a square."""
    if features.ndim == 4:
        return features.shape[1], features.shape[-1]
    return features.shape[-1], round(features.shape[1] ** 0.5)

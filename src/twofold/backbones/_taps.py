"""Reading a network's insides through public forward hooks, and stopping when the deepest one is read."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from twofold.pooling import as_map
from twofold.records import Block, Cost

Hook = Callable[[nn.Module, object, object], object]  # what it gives, if anything, takes the output's place


@dataclass(frozen=True)
class Place:
    """A module whose output is a block's features.

    Attributes:
        name: the block's name.
        module: the module.
        part: which of its outputs, where it gives several.
    """

    name: str
    module: nn.Module
    part: int = 0

    def features(self, output: object) -> Tensor:
        """The features in the module's output."""
        found = output[self.part] if isinstance(output, tuple) else output
        assert isinstance(found, torch.Tensor)
        return found

    def replaced(self, output: object, features: Tensor) -> object:
        """The module's output with other features in it."""
        if not isinstance(output, tuple):
            return features
        return (*output[: self.part], features, *output[self.part + 1 :])


class _DeepestReached(Exception):
    """Leaves the forward pass; carries nothing and never escapes `read`."""


def read(places: Sequence[Place], forward: Callable[[], object]) -> list[Tensor]:
    """Run `forward` until every place has given its output, and no further.

    Returns:
        the outputs, in the order of `places`.
    """
    found: dict[str, Tensor] = {}
    count = len({p.name for p in places})

    def keep(place: Place) -> Hook:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            found[place.name] = place.features(output)
            if len(found) == count:
                raise _DeepestReached

        return hook

    with hooked([(place.module, keep(place)) for place in places]), suppress(_DeepestReached):
        forward()
    return [found[place.name] for place in places]


@contextmanager
def hooked(hooks: Sequence[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Forward hooks for the length of a block; always removed."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def adding(maps: Sequence[tuple[Place, Tensor]]) -> AbstractContextManager[None]:
    """For the length of a block a map [B, C, h, w] is added to each place's output, brought to its size bilinearly."""

    def add(place: Place, extra: Tensor) -> Hook:
        def hook(_module: nn.Module, _inputs: object, output: object) -> object:
            features = place.features(output)
            fitting = extra
            if extra.shape[-2:] != features.shape[-2:]:
                fitting = nn.functional.interpolate(extra, features.shape[-2:], mode="bilinear", align_corners=False)
            return place.replaced(output, features + fitting.to(features.dtype))

        return hook

    return hooked([(place.module, add(place, extra)) for place, extra in maps])


def touched(network: nn.Module, forward: Callable[[], object]) -> dict[str, nn.Parameter]:
    """The parameters, by name, of all modules of a network that a forward pass calls."""
    seen: set[nn.Module] = set()
    with hooked([(module, lambda m, *_: seen.add(m)) for module in network.modules()]):
        forward()
    return {name: p for name, p in network.named_parameters() if network.get_submodule(name.rpartition(".")[0]) in seen}


def compile_each(modules: Sequence[nn.Module]) -> None:
    """Compile modules one by one, their hooks outside; code that layers share is compiled for each of their shapes."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64 * len(modules))
    for module in modules:
        module.forward = torch.compile(module.forward, dynamic=False)


def survey(places: Sequence[Place], network: nn.Module, arguments: Mapping[str, Any]) -> tuple[Block, ...]:
    """Measure channels, size and share of the multiplications of each place in one whole forward pass.

    Nothing is computed: the same modules run with weights on the `meta` device, where tensors are shapes alone.
    """
    seen: dict[str, tuple[Tensor, int]] = {}
    with FlopCounterMode(display=False) as counter:

        def note(place: Place) -> Hook:
            def hook(_module: nn.Module, _inputs: object, output: object) -> None:
                seen[place.name] = (place.features(output), counter.get_total_flops())

            return hook

        with hooked([(place.module, note(place)) for place in places]):
            without_weights(network, arguments)()
    return blocks([(place.name, *seen[place.name]) for place in places], counter.get_total_flops())


def blocks(found: Sequence[tuple[str, Tensor, int]], total: int) -> tuple[Block, ...]:
    """Blocks from names, features and the multiplications needed to get there, numbered in this order."""
    described = []
    for number, (name, features, spent) in enumerate(found, start=1):
        shape = as_map(features).shape
        described.append(Block(number, name, shape[1], shape[-1], share=spent / total))
    return tuple(described)


def without_weights(network: nn.Module, arguments: Mapping[str, Any]) -> Callable[[], Any]:
    """A forward pass of shapes alone, to be called: weights and inputs stand on the `meta` device."""
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
    inputs = _on_meta(dict(arguments))

    def run() -> Any:
        with torch.no_grad():
            return torch.func.functional_call(network, shapes, (), inputs)

    return run


def _on_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty_like(value, device="meta")
    return {name: _on_meta(v) for name, v in value.items()} if isinstance(value, dict) else value


def cost(forward: Callable[[], object]) -> Cost:
    """What a forward pass of shapes alone would take."""
    with FlopCounterMode(display=False) as counter, _Alive() as alive:
        forward()
    return Cost(int(counter.get_total_flops()), alive.peak)


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are made, as long as anybody holds them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._holders: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._note(value)
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()  # views share a storage: it lives as long as the last of them
        self._holders[key] = self._holders.get(key, 0) + 1
        if self._holders[key] == 1:
            self._now += size
            self.peak = max(self.peak, self._now)
        weakref.finalize(tensor, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self._now -= size

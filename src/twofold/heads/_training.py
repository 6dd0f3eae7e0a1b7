"""Training by gradients: many copies of one network at once, one for each candidate rate and decay, in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from twofold.heads._pieces import product

Weights = dict[str, Tensor]
Slopes = Callable[[Weights, Any, Tensor], Weights]


@dataclass(frozen=True)
class Candidate:
    """A learning rate and a weight decay."""

    rate: float
    decay: float


@dataclass(frozen=True)
class Recipe:
    """How a head is trained.

    Attributes:
        candidates: what val chooses from; the middle one is taken without val.
        epochs, batch: passes over the rows, rows an update.
        updates: at least so many updates, however few rows there are.
        smoothing: of the labels.
        adaptive: AdamW with warm-up and a cosine; else plain SGD whose rate falls to a tenth every quarter.
    """

    candidates: tuple[Candidate, ...]
    epochs: int
    batch: int
    updates: int
    smoothing: float
    adaptive: bool

    def length(self, count: int) -> tuple[int, int]:
        """Epochs, and updates of each, on so many rows."""
        an_epoch = math.ceil(count / self.batch)
        return max(self.epochs, math.ceil(self.updates / an_epoch)), an_epoch

    def rate(self, done: float) -> float:
        """The factor of the learning rate when this share of the training is done."""
        if not self.adaptive:
            return 0.1 ** int(4 * done)
        return min(done / WARM_UP, 1.0) * (1 + math.cos(math.pi * done)) / 2


WARM_UP = 0.05
CACHED = 1 << 16  # weights that are updated at once
IMAGES = 64  # whose maps pass a network at once
RECIPES = {
    # The released code: SGD without momentum and decay, batches of 128, 28 epochs, a tenth every 7 (PAPER.md 2). The
    # rate is the linear head's; each head says its own.
    "paper": Recipe((Candidate(1e-2, 0.0),), epochs=28, batch=128, updates=0, smoothing=0.0, adaptive=False),
    "strong": Recipe(
        tuple(Candidate(rate, decay) for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2) for decay in (0.01, 0.1, 1.0)),
        epochs=28, batch=256, updates=400, smoothing=0.1, adaptive=True,
    ),
}  # fmt: skip


def train(
    make: Callable[[], nn.Module], x: Callable[[Iterable[Tensor]], Iterable[Any]], y: Tensor, recipe: Recipe, seed: int
) -> list[Weights]:
    """Train one network a candidate, all from the same start and on the same batches.

    Args:
        make: gives the network, whose weights are drawn when it is made.
        x: from the row numbers [B] of every update the prepared features [B, ...] of each, or tuples of them.
        y: class positions int64 [N].
        recipe: how.
        seed: of the start and of the order of rows.

    Returns:
        the weights of each candidate, in their order.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
    count = len(recipe.candidates)
    stacked, _ = stack_module_state([network] * count)
    weights = {name: value.detach().clone() for name, value in stacked.items()}

    linear = isinstance(network, nn.Linear)
    slopes = _linear_slopes(recipe.smoothing) if linear else _slopes(network, recipe.smoothing)
    step = _adaptive(recipe, weights) if recipe.adaptive else _plain(recipe, weights)
    wanted = (rows for _, rows in _batches(len(y), recipe, seed))
    for (done, rows), features in zip(_batches(len(y), recipe, seed), x(wanted), strict=True):
        step(slopes(weights, features, y[rows]), recipe.rate(done))
    return [{name: value[k] for name, value in weights.items()} for k in range(count)]


def _slopes(network: nn.Module, smoothing: float) -> Slopes:
    """The gradients of the loss of every candidate: stacked weights, features and labels of a batch -> slopes.

    Rows are small, and all candidates at once save the calls. Of maps one candidate and some images at a time are
    faster, since what the layers pass on stays in the cache, and take as little memory as one network does.
    """

    def loss(own: Weights, rows: Any, labels: Tensor) -> Tensor:
        scores = functional_call(network, own, (rows,))
        return nn.functional.cross_entropy(scores, labels, label_smoothing=smoothing)

    at_once = vmap(grad(loss), in_dims=(0, None, None))

    def in_turn(weights: Weights, rows: Any, labels: Tensor) -> Weights:
        found = []
        for k in range(len(next(iter(weights.values())))):
            own = {name: value[k].requires_grad_() for name, value in weights.items()}
            for some, answers in _split(rows, labels):
                torch.autograd.backward(len(answers) / len(labels) * loss(own, some, answers))
            found.append([value.grad for value in own.values()])
        return {name: torch.stack(parts) for name, parts in zip(weights, zip(*found, strict=True), strict=True)}

    def slopes(weights: Weights, rows: Any, labels: Tensor) -> Weights:
        few = isinstance(rows, Tensor) and rows.ndim == 2
        told: Weights = (at_once if few else in_turn)(weights, rows, labels)
        return told

    return slopes


def _split(rows: Any, labels: Tensor) -> Iterator[tuple[Any, Tensor]]:
    """Features and labels of a batch, some images at a time."""
    several = isinstance(rows, tuple)
    parts = [torch.split(one, IMAGES) for one in (rows if several else (rows,))]
    for *some, answers in zip(*parts, torch.split(labels, IMAGES), strict=True):
        yield tuple(some) if several else some[0], answers


def _linear_slopes(smoothing: float) -> Slopes:
    """As `_slopes` of one linear layer, written out: all candidates' scores are one product, and so are the slopes."""

    def slopes(weights: Weights, x: Tensor, labels: Tensor) -> Weights:
        candidates, classes, columns = weights["weight"].shape
        # Rows stand last: sums over classes then run over neighbours in memory.
        scores = product(weights["weight"].view(-1, columns), x).view(candidates, classes, -1)
        # The slope of the cross-entropy: probabilities less the smoothed indicators.
        slope = scores.add_(weights["bias"][:, :, None]).softmax(1).sub_(smoothing / classes)
        own = labels.expand(candidates, 1, -1)
        slope.scatter_add_(1, own, slope.new_full(own.shape, smoothing - 1)).div_(len(x))
        along = product(slope.view(-1, len(x)), x.T.contiguous()).view_as(weights["weight"])
        return {"weight": along, "bias": slope.sum(2)}

    return slopes


def _batches(count: int, recipe: Recipe, seed: int) -> Iterator[tuple[float, Tensor]]:
    """(share of the training that is done after it, row numbers) of every update; no row is left out of an epoch."""
    chance = torch.Generator().manual_seed(seed)
    epochs, an_epoch = recipe.length(count)
    for epoch in range(epochs):
        for k, rows in enumerate(torch.split(torch.randperm(count, generator=chance), recipe.batch)):
            yield (epoch * an_epoch + k + 0.5) / (epochs * an_epoch), rows


def _each(values: list[float], like: Tensor) -> Tensor:
    """One number a candidate, shaped to multiply stacked weights."""
    return torch.tensor(values).view(-1, *[1] * (like.ndim - 1))


def _plain(recipe: Recipe, weights: Weights) -> Callable[[Weights, float], None]:
    rates = {name: _each([c.rate for c in recipe.candidates], value) for name, value in weights.items()}

    def step(slopes: Weights, factor: float) -> None:
        for name, slope in slopes.items():
            weights[name] -= factor * rates[name] * slope

    return step


def _adaptive(recipe: Recipe, weights: Weights) -> Callable[[Weights, float], None]:
    """AdamW (Loshchilov and Hutter 2019, Algorithm 2); biases, norms and single vectors do not decay."""
    mean, square = ({name: torch.zeros_like(value) for name, value in weights.items()} for _ in range(2))
    rates = {name: _each([c.rate for c in recipe.candidates], value) for name, value in weights.items()}
    decays = {name: _each([c.decay for c in recipe.candidates], value) for name, value in weights.items()}
    count = 0

    def step(slopes: Weights, factor: float) -> None:
        nonlocal count
        count += 1
        for name, slope in slopes.items():
            # Some candidates at a time, so that the passes over them find them in the cache.
            at_once = max(CACHED * len(slope) // slope.numel(), 1)
            for some in (slice(k, k + at_once) for k in range(0, len(slope), at_once)):
                state = (weights[name][some], slope[some], mean[name][some], square[name][some])
                _change(*state, factor * rates[name][some], decays[name][some], count)

    return step


def _change(
    weights: Tensor, slope: Tensor, mean: Tensor, square: Tensor, rates: Tensor, decays: Tensor, count: int
) -> None:
    """The count-th update of AdamW, in place; rates and decays one a candidate."""
    mean.lerp_(slope, 1 - 0.9)
    square.mul_(0.999).addcmul_(slope, slope, value=1 - 0.999)
    size = (square / (1 - 0.999**count)).sqrt_().add_(1e-8)
    if weights.ndim > 2:
        weights.mul_(1 - rates * decays)
    weights.sub_(torch.div(mean, size, out=size).mul_(rates / (1 - 0.9**count)))

"""Gradients on a CPU: replicas that share their weights, each with half of the batch and half of the cores.

A small network spends much of its time where many cores wait for one another at the end of each small operation.
Two halves of a batch never wait for each other, and torch works outside Python's lock.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

# More would queue for Python's lock between operations.
COUNT = 2


class Replicas:
    """A network and its copies; the copies have gradients of their own and no weights of their own."""

    def __init__(self, network: nn.Module) -> None:
        threads = torch.get_num_threads()
        self._networks = [network, *(_sharing(network) for _ in range(min(COUNT, threads) - 1))]
        each = max(1, threads // len(self._networks))
        self._pool = ThreadPoolExecutor(len(self._networks), initializer=torch.set_num_threads, initargs=(each,))

    def backward(self, loss: Callable[[nn.Module, slice], Tensor], size: int) -> Tensor:
        """Add the gradient of the mean loss over a batch of `size` to the network's own parameters.

        Args:
            loss: gives the mean loss of a network on a part of the batch.
            size: images in the batch.

        Returns:
            the mean loss. Parts are added in a fixed order, so the sum is the same every time.
        """
        parts = _parts(size, len(self._networks))

        def work(network: nn.Module, part: slice) -> Tensor:
            share = loss(network, part) * ((part.stop - part.start) / size)
            share.backward()
            detached: Tensor = share.detach()
            return detached

        working = self._networks[: len(parts)]
        pending = [self._pool.submit(work, network, part) for network, part in zip(working, parts, strict=True)]
        losses = [done.result() for done in pending]
        for replica in working[1:]:
            self._collect(replica)
        return torch.stack(losses).sum()

    def _collect(self, replica: nn.Module) -> None:
        """Add a replica's gradients to the network's and forget them."""
        for own, theirs in zip(self._networks[0].parameters(), replica.parameters(), strict=True):
            if own.grad is not None and theirs.grad is not None:
                own.grad += theirs.grad
            theirs.grad = None


def _parts(size: int, count: int) -> list[slice]:
    """The batch in `count` parts, fewer where it has fewer images."""
    cuts = [size * k // min(count, size) for k in range(min(count, size) + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(cuts)]


def _sharing(network: nn.Module) -> nn.Module:
    """A copy whose parameters are the very memory of the network's."""
    replica = copy.deepcopy(network)
    for own, theirs in zip(network.parameters(), replica.parameters(), strict=True):
        theirs.data = own.data
    return replica

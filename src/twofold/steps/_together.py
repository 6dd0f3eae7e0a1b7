"""Several processes that a launcher started and that train one network: each has its share of every batch.

Gradients are sums over all of them, and batch norms take their statistics from all images of a batch, so that it is the
training of one process with the same batch, to rounding. Without a launcher all of this does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.distributed.nn import functional as summed

from twofold import runs
from twofold.errors import BadRun

Value = TypeVar("Value")
# The first process alone probes, samples and measures, while the others wait for it. One that ends is noticed at once.
PATIENCE = timedelta(hours=12)


@contextmanager
def company(out: Path, device: torch.device | None = None) -> Iterator[None]:
    """The connection to the other processes; where it breaks, one line says so.

    Args:
        out: the run that they train.
        device: this process's; none where a trainer connects by itself.

    Raises:
        BadRun: another process has ended, or they cannot find one another.
    """
    if runs.processes() == 1:
        yield
        return
    try:
        if device is not None:
            PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
        yield
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise BadRun(
                f"Another of the {runs.processes()} processes that train {out} has ended, or cannot be found; mend "
                "what it says, then run the same command again. It goes on from the last checkpoint."
            ) from error
        raise
    finally:
        # Left open, a connection may keep the others waiting, or end this process with a crash instead of its message.
        if distributed.is_initialized():
            distributed.destroy_process_group()
        PartialState._reset_state()


@contextmanager
def alone() -> Iterator[None]:
    """What the first process does while the others wait for it: the threads of those on its machine are free."""
    own = torch.get_num_threads()
    torch.set_num_threads(own * int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
    try:
        yield
    finally:
        torch.set_num_threads(own)


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """This process's part of some images; all parts together are all of them, in their order."""
    if count() == 1:
        return positions
    return np.array_split(positions, count())[distributed.get_rank()]


def add(tensors: Iterable[Tensor]) -> None:
    """Put in the place of each tensor its sum over the processes."""
    if count() == 1:
        return
    for tensor in tensors:
        distributed.all_reduce(tensor)


def gathered(value: Value) -> list[Value]:
    """A value of every process, in their order."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    distributed.all_gather_object(found, value)
    return found


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        distributed.barrier()


def joined(network: nn.Module) -> None:
    """Let every batch norm of a network take its statistics from the images of all processes.

    torch's own `SyncBatchNorm` does this on GPUs only.
    """
    if count() == 1:
        return
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, _Norm.of(child))


class _Norm(nn.modules.batchnorm._BatchNorm):
    """A batch norm over the images of all processes, with the names of one."""

    @classmethod
    def of(cls, norm: nn.modules.batchnorm._BatchNorm) -> _Norm:
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made.load_state_dict(norm.state_dict())
        made.train(norm.training)
        return made.to(next(norm.buffers()).device)

    def _check_input_dim(self, x: Tensor) -> None:
        """Rows [B, D] and maps [B, C, h, w] alike."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, ...] by the mean and variance of every channel over all processes' images."""
        if not self.training:
            return super().forward(x)
        others = [k for k in range(x.ndim) if k != 1]
        beside = (1, -1, *[1] * (x.ndim - 2))
        n = _over_all(x.new_tensor([x.numel() / x.shape[1]]))
        mean = _over_all(x.sum(others)) / n
        apart = x - mean.view(beside)
        variance = _over_all(apart.square().sum(others)) / n
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            assert self.num_batches_tracked is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)
            self.num_batches_tracked.add_(1)
        normal: Tensor = apart * (variance + self.eps).rsqrt().view(beside)
        return normal * self.weight.view(beside) + self.bias.view(beside) if self.affine else normal


def _over_all(here: Tensor) -> Tensor:
    """The sum over all processes, through which gradients flow."""
    found: Tensor = summed.all_reduce(here)  # type: ignore[no-untyped-call]
    return found


def stretches(parts: Sequence[Tensor]) -> Tensor:
    """Rows that the processes computed for their shares, of all of them in order, on the CPU."""
    return torch.cat([torch.from_numpy(one) for one in gathered(torch.cat(list(parts)).numpy())])

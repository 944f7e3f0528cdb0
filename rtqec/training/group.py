"""Processes that train together, one per GPU, as PyTorch's own `torchrun` starts them; without it, this one alone.

    torchrun --nproc-per-node 4 -m rtqec.cli train CONFIG

Gradients are averaged by DistributedDataParallel; what only one process can know (the clock, a signal) rank 0 tells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from rtqec.errors import ConfigError

_PATIENCE = timedelta(hours=12)
"""Others wait while rank 0 evaluates."""


@dataclass(frozen=True)
class Group:
    """Who trains together.

    Attributes:
        rank: Of this process.
        size: Number of processes.
        device: Of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are averaged over the group."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module, [self.device.index] if self.device.type == "cuda" else None)

    def agree(self, *values: float) -> tuple[float, ...]:
        """What rank 0 says of some numbers."""
        if self.size == 1:
            return values
        told = torch.tensor(values, dtype=torch.float64)
        distributed.broadcast(told, src=0)
        return tuple(told.tolist())

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            # Everybody's number is needed for the sum. On the CPU, where waiting for hours costs nothing.
            distributed.all_reduce(torch.zeros(1))


@contextmanager
def training_group(device: str) -> Iterator[Group]:
    """The group that the environment names, on `device` ("auto": a GPU where there is one).

    Raises:
        ConfigError: A GPU is asked for, and there is none.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    on_gpu = torch.cuda.is_available() and device != "cpu"
    if device == "cuda" and not on_gpu:
        raise ConfigError(
            "[training] device", 'is "cuda", but PyTorch sees no GPU here.',
            "It would train on the CPU, some hundred times slower, without anybody asking for that.",
            'Set device = "auto", or install a PyTorch and a driver that see the GPU.',
        )  # fmt: skip
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    if size == 1:
        yield Group(0, 1, place)
        return
    # Numbers that ranks agree on lie on the CPU, so that nobody waits for a GPU to know them.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        group = Group(rank, size, place)
        yield group
        # Nobody ends while another one may still ask for him.
        group.wait()
    finally:
        distributed.destroy_process_group()

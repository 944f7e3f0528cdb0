"""A network as a function from events to logits, for judging it: by PyTorch, or by the engine that will run it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rtqec.device.engine import Engine
from rtqec.neural.layout import GridLayout

CELLS_AT_ONCE = {"cpu": 100_000, "cuda": 4_000_000}
"""Cells of one forward pass: on a CPU what its caches like, on a GPU what keeps it busy within a few GB."""


_PATIENCE_NS = 1_000_000_000


class NetworkAnswers:
    """What a network answers on whole shots; see `handover.Answers`.

    Args:
        module: On its device.
        layout: The grid of the experiment.
        num_layers: Layers of a shot.
        precision: "bf16" for bfloat16 where it is safe, else float32.
    """

    def __init__(self, module: nn.Module, layout: GridLayout, num_layers: int, precision: str) -> None:
        self._module = module
        self._device = next(module.parameters()).device
        self._precision = precision
        presence = torch.from_numpy(layout.presence(num_layers))
        self._presence = presence.to(self._device)
        self._at_once = max(1, CELLS_AT_ONCE[self._device.type] // presence[0].numel())

    @torch.inference_mode()
    def __call__(self, events: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Answer shots."""
        self._module.eval()
        found = []
        for start in range(0, len(events), self._at_once):
            piece = torch.from_numpy(np.ascontiguousarray(events[start : start + self._at_once]))
            with autocast(self._device, self._precision):
                logits = self._module(volume_of(piece.to(self._device), self._presence))
            found.append(logits.float().cpu().numpy())
        return np.concatenate(found)


class EngineAnswers:
    """What an engine answers on whole shots, one by one; see `handover.Answers`. On a CPU two to three times as quick
    as PyTorch, and what the daemon will run.

    Args:
        engine: For one chunk that is a whole shot.
        layout: The grid of the experiment.
    """

    def __init__(self, engine: Engine, layout: GridLayout) -> None:
        self._engine = engine
        engine.volume[0, 2:] = layout.presence(engine.shape.layers)
        engine.inside[...] = 1

    def __call__(self, events: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Answer shots."""
        engine = self._engine
        found = np.empty((len(events), *engine.shape.logits[1:]), np.float32)
        for shot, logits in zip(events, found, strict=True):
            engine.volume[0, :2] = shot
            engine.enqueue(1)
            while not engine.wait(_PATIENCE_NS):
                pass
            engine.take()
            logits[...] = engine.logits[0]
        return found


def volume_of(events: torch.Tensor, presence: torch.Tensor) -> torch.Tensor:
    """The input of a network: events, and the two constant channels, float32, in the layout that convolutions like.

    Args:
        events: uint8, shape (batch, 2, layers, distance, distance).
        presence: float32, shape (2, layers, distance, distance).
    """
    whole = torch.cat([events.float(), presence.expand(len(events), -1, -1, -1, -1)], dim=1)
    return whole.contiguous(memory_format=torch.channels_last_3d)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """bfloat16 for convolutions, or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()

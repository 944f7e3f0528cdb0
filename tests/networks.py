"""Networks for tests: with weights as a trained network has them, so that bounds on logits mean something."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.neural.network import NetworkSpec


def make_trained(spec: NetworkSpec, size: float = 15.0) -> Any:
    """A module whose logits reach about `size` on `make_input`, as those of trained networks do."""
    import torch

    from rtqec.training.module import make_module

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        module = make_module(spec).eval()
    found = float(np.abs(answer(module, *make_input(2, 9, 5))).max())
    last = list(module.parameters())[-2:]
    with torch.no_grad():
        for values in last:
            values.mul_(size / found)
    return module


def make_input(
    chunks: int, layers: int, distance: int, density: float = 0.15
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Volumes with events and presence; the first chunk begins with layers beyond the end, the last one ends so."""
    rng = np.random.default_rng(5)
    volume = np.empty((chunks, 4, layers, distance, distance), np.float32)
    volume[:, :2] = rng.random((chunks, 2, layers, distance, distance)) < density
    volume[:, 2:] = rng.choice([0.0, 0.5, 1.0], (chunks, 2, layers, distance, distance))
    inside = np.ones((chunks, 1, layers, 1, 1), np.float32)
    inside[0, :, : layers // 4] = 0
    inside[-1, :, layers - layers // 3 :] = 0
    return volume * inside, inside


def answer(module: Any, volume: NDArray[np.float32], inside: NDArray[np.float32]) -> NDArray[np.float32]:
    """PyTorch's logits, float32."""
    import torch

    with torch.inference_mode():
        logits: NDArray[np.float32] = module(torch.from_numpy(volume), torch.from_numpy(inside)).numpy()
    return logits

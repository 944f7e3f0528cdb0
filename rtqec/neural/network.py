"""The shapes of networks: what they read, what they answer, how far they look. Nothing here needs a framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

INPUTS = 4
"""Detection events of both kinds of checks, and where such checks are."""
HARD_OUTPUTS = 2
"""Data errors and wrong outcomes of the own kind: what is decided."""
EDGE_OUTPUTS = 7
"""Classes of edges of the own kind's matching graph: what is weighed; see `neural.edges`."""


@dataclass(frozen=True)
class NetworkSpec:
    """A network of 3D convolutions over (time, row, column) that keeps the shape of the volume.

    Attributes:
        family: "residual": a stem, then `x + conv(gelu(x))` for each further kernel, then one answer per cell from
            gelu(x). "published": convolutions with gelu between them and none behind the last.
        filters: Channels after each convolution; all equal in the residual family.
        time_kernels, space_kernels: Width of each convolution.
        outputs: Answers per cell: 2 (data errors and wrong outcomes of the own kind), 9 (the same, then the classes of
            edges), or 4 (of both kinds: data, data, check, check).
    """

    family: Literal["residual", "published"]
    filters: tuple[int, ...]
    time_kernels: tuple[int, ...]
    space_kernels: tuple[int, ...]
    outputs: int

    @property
    def halo(self) -> int:
        """Layers before and after one that its answer depends on."""
        return sum(k // 2 for k in self.time_kernels)

    @property
    def frame(self) -> Literal["own", "published"]:
        """Whose layout it reads; see `neural.layout`."""
        return "published" if self.outputs == 4 else "own"

    @property
    def weighs_edges(self) -> bool:
        """Whether it answers for edges too, as the soft hand-over needs."""
        return self.outputs == HARD_OUTPUTS + EDGE_OUTPUTS

    @property
    def macs_per_cell(self) -> int:
        """Multiplications for one cell of one layer."""
        widths = [INPUTS, *self.filters]
        convolutions = zip(widths, widths[1:], self.time_kernels, self.space_kernels, strict=False)
        total = sum(a * b * t * s * s for a, b, t, s in convolutions)
        return total + (self.filters[-1] * self.outputs if self.family == "residual" else 0)

    @property
    def num_parameters(self) -> int:
        """Weights and biases."""
        biases = sum(self.filters) + (self.outputs if self.family == "residual" else 0)
        return self.macs_per_cell + biases


def residual_network(channels: int, time_kernels: tuple[int, ...], edges: bool = False) -> NetworkSpec:
    """One of our own: kernels 3 wide in space, and in time as given; with answers for edges, or without."""
    depth, outputs = len(time_kernels), HARD_OUTPUTS + (EDGE_OUTPUTS if edges else 0)
    return NetworkSpec("residual", (channels,) * depth, time_kernels, (3,) * depth, outputs)


def _published(kernel: int, *filters: int) -> NetworkSpec:
    return NetworkSpec("published", (*filters, 4), (kernel,) * (len(filters) + 1), (kernel,) * (len(filters) + 1), 4)


PUBLISHED = {
    1: _published(3, 128, 128, 128),
    2: _published(3, 256, 256, 256),
    3: _published(5, 128, 128, 128),
    4: _published(3, 128, 128, 128, 128, 128),
    5: _published(3, 256, 256, 256, 256, 256),
}
"""NVIDIA's architectures for surface codes, by id: 1 is Ising-Decoder-SurfaceCode-1 Fast, 4 is Accurate.

Source: NVIDIA/Ising-Decoding, model registry (Apache-2.0), read in July 2026.
"""

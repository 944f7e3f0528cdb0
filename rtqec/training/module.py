"""The networks as PyTorch modules."""

from __future__ import annotations

import torch
from torch import nn

from rtqec.neural.network import INPUTS, NetworkSpec


class Residual(nn.Module):
    """The residual family; see `NetworkSpec`.

    Args:
        spec: Its shape.
        densities: How often each answer is yes, so that training begins at the right rates.
    """

    def __init__(self, spec: NetworkSpec, densities: tuple[float, ...] | None = None) -> None:
        super().__init__()
        widths = [INPUTS, *spec.filters]
        self.convolutions = nn.ModuleList(
            nn.Conv3d(a, b, (t, s, s), padding=(t // 2, s // 2, s // 2))
            for a, b, t, s in zip(widths, widths[1:], spec.time_kernels, spec.space_kernels, strict=False)
        )
        self.head = nn.Conv3d(spec.filters[-1], spec.outputs, 1)
        with torch.no_grad():
            self.head.weight.mul_(0.3)
            if densities is not None and self.head.bias is not None:
                self.head.bias.copy_(torch.logit(torch.tensor(densities)))

    def forward(self, volume: torch.Tensor, inside: torch.Tensor | None = None) -> torch.Tensor:
        """Answer every cell.

        Args:
            volume: float, shape (batch, 4, layers, distance, distance).
            inside: float, shape (batch, 1, layers, 1, 1): 1 for layers of the shot, 0 for those beyond its ends; None
                where all are. Layers beyond the ends then count as a convolution's padding does, layer by layer, so
                that a piece of a shot in a volume of fixed size is answered as within the whole shot.

        Returns:
            Logits, float, shape (batch, outputs, layers, distance, distance).
        """
        x = self.convolutions[0](volume)
        x = x if inside is None else x * inside
        for convolution in self.convolutions[1:]:
            step = convolution(nn.functional.gelu(x, approximate="tanh"))
            x = x + (step if inside is None else step * inside)
        answered: torch.Tensor = self.head(nn.functional.gelu(x, approximate="tanh"))
        return answered


class Published(nn.Module):
    """The published family, with its tensors' names: `net.0.weight`, `net.3.weight`, .."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        widths = [INPUTS, *spec.filters]
        layers: list[nn.Module] = []
        for a, b, k in zip(widths, widths[1:], spec.space_kernels, strict=False):
            # The dropout between them acts in training only, and is not trained here; it keeps the numbering.
            layers += [nn.Conv3d(a, b, k, padding=k // 2), nn.Identity(), nn.GELU(approximate="tanh")]
        self.net = nn.Sequential(*layers[:-2])

    def forward(self, volume: torch.Tensor, inside: torch.Tensor | None = None) -> torch.Tensor:
        """Answer every cell; see `Residual.forward`."""
        x = volume
        for layer in self.net:
            x = layer(x)
            if inside is not None and isinstance(layer, nn.Conv3d):
                x = x * inside
        return x


def make_module(spec: NetworkSpec, densities: tuple[float, ...] | None = None) -> nn.Module:
    """The module of a shape, with fresh weights."""
    return Residual(spec, densities) if spec.family == "residual" else Published(spec)

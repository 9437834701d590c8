"""A network of two layers that computes the same for every scale, which one gains and the other loses."""

from __future__ import annotations

import torch
from torch import nn

from gcpzoo.analysis.measurements.surface import Surface, weight_surface


class TwoLayers(nn.Module):
    """A network that computes the same for every scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)
        self.first.bias.data *= 0
        self.first.weight.data *= scale
        self.second.weight.data /= scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu().mean((2, 3)))


def landscape(scale: float = 1.0) -> Surface:
    """Its loss over eight images of noise."""
    x = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return weight_surface(TwoLayers(scale), [(x, torch.arange(8) % 4)], dtype=torch.float64)

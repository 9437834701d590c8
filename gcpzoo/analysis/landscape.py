"""The loss along random directions that are as long as the filters they move.

Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018: a network with ReLU and batch norm computes
the same when a filter is scaled and the next one scaled back, so that plain distances between weights say little. A
direction whose filters have the norms of the network's own does not change with such scales.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from scipy.optimize import brentq
from torch import Tensor

from gcpzoo.analysis.surface import Point, Surface, move
from gcpzoo.errors import ZooError


def filter_norms(tensor: Tensor) -> Tensor:
    """Give the norm of each filter of a weight: of its slices along the first dimension, of shape ``(n, 1, …)``.

    >>> filter_norms(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    tensor([[5.],
            [2.]])
    """
    return tensor.flatten(1).norm(dim=1).reshape(-1, *[1] * (tensor.ndim - 1))


def filter_direction(origin: Point, seed: int = 0) -> Point:
    """Draw a normally distributed direction and give each filter the norm of the network's own.

    Biases and the weights of normalization layers, tensors of one dimension, stay where they are, as in the paper's
    figures; so does what batch norm has counted.

    Args:
        origin: the network's weights.
        seed: of the direction.

    >>> direction = filter_direction({"w": torch.tensor([[3.0, 4.0], [0.0, 2.0]]), "b": torch.ones(2)})
    >>> filter_norms(direction["w"]).flatten(), direction["b"]
    (tensor([5., 2.]), tensor([0., 0.]))
    """
    generator = torch.Generator().manual_seed(seed)
    direction = {}
    for name, w in origin.items():
        noise = torch.randn(w.shape, generator=generator, dtype=torch.float64)
        if w.ndim < 2:
            direction[name] = torch.zeros_like(w)
            continue
        own = filter_norms(w.double().cpu())
        direction[name] = (noise * (own / filter_norms(noise))).to(w)
    if not any(bool(d.any()) for d in direction.values()):
        raise ZooError("a landscape needs weights with filters, of two dimensions or more, that are not zero")
    return direction


def loss_along(surface: Surface, direction: Point, positions: Sequence[float]) -> list[float]:
    """Compute the loss at ``origin + a · direction`` for each position a.

    >>> bowl = Surface({"x": torch.tensor([0.0])}, [lambda point: point["x"].square().sum()])
    >>> loss_along(bowl, {"x": torch.tensor([2.0])}, [-1, 0, 0.5])
    [4.0, 0.0, 1.0]
    """
    return [surface.loss(move(surface.origin, direction, a)) for a in positions]


def loss_plane(surface: Surface, first: Point, second: Point, positions: Sequence[float]) -> list[list[float]]:
    """Compute the loss at ``origin + a · first + b · second``: a row for each a, a column for each b.

    >>> bowl = Surface({"x": torch.zeros(2)}, [lambda point: point["x"].square().sum()])
    >>> loss_plane(bowl, {"x": torch.tensor([1.0, 0.0])}, {"x": torch.tensor([0.0, 2.0])}, [0, 1])
    [[0.0, 4.0], [1.0, 5.0]]
    """
    return [[surface.loss(move(move(surface.origin, first, a), second, b)) for b in positions] for a in positions]


def width(
    surface: Surface, direction: Point, factor: float = 2.0, reach: float = 1.0, points: int = 10, margin: float = 1e-3
) -> float | None:
    """Measure how far apart the loss rises to a multiple of the network's own, on both sides along a direction.

    On each side the first rise is looked for at even positions, then between two of them by Brent's method.

    Args:
        surface: of weights.
        direction: of :func:`filter_direction`, so that widths of networks compare.
        factor: the multiple.
        reach: how far to look, in lengths of the direction.
        points: number of positions on each side.
        margin: of the position, absolute.

    Returns:
        The width in lengths of the direction; ``None`` if the loss does not rise so far within reach, or is 0.

    >>> valley = Surface({"x": torch.tensor([0.0])}, [lambda point: 1 + 16 * point["x"].square().sum()])
    >>> round(width(valley, {"x": torch.tensor([1.0])}), 2)
    0.5
    """
    level = factor * surface.loss(surface.origin)
    if not level > 0:
        return None

    def above(a: float) -> float:
        value = surface.loss(move(surface.origin, direction, a))
        return min(value, 2 * level) - level if value == value else level  # overflow is above every level

    left, right = (_crossing(above, side * reach, points, margin) for side in (-1.0, 1.0))
    return None if left is None or right is None else right - left


def _crossing(above: Callable[[float], float], end: float, points: int, margin: float) -> float | None:
    inner = 0.0
    for k in range(1, points + 1):
        outer = end * k / points
        if above(outer) >= 0:
            return float(brentq(above, inner, outer, xtol=margin))
        inner = outer
    return None

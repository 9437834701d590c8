"""The loss along random directions that are as long as the filters they move.

Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018: a network with ReLU and batch norm computes
the same when a filter is scaled and the next one scaled back, so that plain distances between weights say little. A
direction whose filters have the norms of the network's own does not change with such scales.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from gcpzoo.analysis.drawing.style import TEXT, add_legend, new_figure, plain, series
from gcpzoo.analysis.measurements.subject import Measurement, Row, Subject
from gcpzoo.analysis.measurements.surface import Point, Surface, move, weight_surface
from gcpzoo.data.loading import derived_seed
from gcpzoo.errors import ZooError

IMAGES = 32
DIRECTIONS, WIDTH_POINTS = 2, 10
LINE = tuple(float(a) for a in np.linspace(-1, 1, 21).round(6))
HIGHEST = 1e9
"""Where a figure ends; what overflows is drawn there."""
PLANE = tuple(float(a) for a in np.linspace(-1, 1, 7).round(6))


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
    >>> filter_norms(direction["w"]).flatten().round(), direction["b"]
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


def _landscape(subject: Subject) -> list[Row]:
    rows: list[Row] = []
    batches = list(subject.batches(subject.loss_split(), subject.images or IMAGES))
    for name, model in subject.networks():
        surface = weight_surface(model, batches)
        directions = [filter_direction(surface.origin, derived_seed(subject.seed, k)) for k in range(DIRECTIONS)]
        base = {"model": name, "images": sum(len(labels) for _, labels in batches)}
        empty = {"direction": None, "a": None, "b": None, "loss": None, "width": None}
        for k, direction in enumerate(directions):
            line = loss_along(surface, direction, LINE)
            about = {**base, "kind": "line", **empty, "direction": k}
            rows += [{**about, "a": a, "loss": loss} for a, loss in zip(LINE, line)]
            rows.append(
                {**about, "kind": "width at twice the loss", "width": width(surface, direction, points=WIDTH_POINTS)}
            )
        plane = loss_plane(surface, directions[0], directions[1], PLANE)
        about = {**base, "kind": "plane", **empty}
        rows += [
            {**about, "a": a, "b": b, "loss": loss} for a, part in zip(PLANE, plane) for b, loss in zip(PLANE, part)
        ]
    return rows


def _draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = new_figure(4.2 * (1 + len(models)), 3.6, 1 + len(models))
    for i, name in enumerate(models):
        for k in range(DIRECTIONS):
            mine = [r for r in rows if r["model"] == name and r["kind"] == "line" and r["direction"] == k]
            label = {"label": plain(name)} if not k else {}
            axes[0].semilogy([r["a"] for r in mine], [r["loss"] for r in mine], markersize=3, **label, **series(i))
        plane = [r["loss"] for r in rows if r["model"] == name and r["kind"] == "plane"]
        heights = np.log10(np.clip(np.nan_to_num(plane, nan=HIGHEST), 1 / HIGHEST, HIGHEST)).reshape(len(PLANE), -1).T
        lines = axes[1 + i].contour(PLANE, PLANE, heights, levels=8, colors=TEXT, linewidths=0.8)
        axes[1 + i].clabel(lines, fontsize=7, colors=TEXT)
        axes[1 + i].set(xlabel="direction 0", ylabel="direction 1", title=f"log10 loss, {plain(name)}")
    axes[0].set(xlabel="along a filter-normalized direction", ylabel="loss")
    add_legend(axes[0])
    return figure


LANDSCAPE = Measurement(
    "landscape",
    _landscape,
    _draw,
    "Loss along one and two random directions with the norms of the network's filters, batch norm as it is (Li et al., "
    "NeurIPS 2018, as the surfaces of figure 1); for covariance pooling: flatter minima in Wang et al., TPAMI 2023",
)

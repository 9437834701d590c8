r"""How sharp the minimum is that a network lies in: the largest rise of the loss nearby, and its largest curvature.

Adaptive sharpness is Kwon et al., "ASAM: Adaptive Sharpness-Aware Minimization", ICML 2021,

.. math:: \max_{\lVert T_\theta^{-1}\epsilon\rVert_2\le\rho} L(\theta+\epsilon) - L(\theta),

whose T makes it independent of scales that a network with ReLU or batch norm can shift between its layers; with T = 1
it is the sharpness of Foret et al., "Sharpness-Aware Minimization", ICLR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gcpzoo.analysis.drawing.style import TEXT, add_legend, new_figure, plain, series
from gcpzoo.analysis.measurements.landscape import filter_norms
from gcpzoo.analysis.measurements.subject import Measurement, Row, Subject
from gcpzoo.analysis.measurements.surface import Point, Surface, dot, move, norm, weight_surface
from gcpzoo.errors import ZooError, unknown_name

IMAGES = 32
RHOS = (0.05, 0.1, 0.2, 0.5)
STEPS, ITERATIONS = 5, 20
RISE, CURVATURE = "adaptive sharpness", "largest eigenvalue of the Hessian"

RADII = ("filter", "element", "plain")
RELATIVE_STEP = 1e-9


def scales(origin: Point, radius: str = "filter", floor: float = 0.01) -> Point:
    """Give T, by which each weight's share of the radius is measured.

    Args:
        origin: the weights.
        radius: ``filter``: the norm of the filter that the weight belongs to, for tensors of one dimension the
            weight's own size; ``element``: the weight's own size; ``plain``: 1.
        floor: added to sizes, the paper's η, so that a weight of 0 can move.

    Raises:
        ZooError: if ``radius`` is unknown.

    >>> scales({"w": torch.tensor([[3.0, -4.0]]), "b": torch.tensor([-1.0])}, floor=0)
    {'w': tensor([[5., 5.]]), 'b': tensor([1.])}
    """
    if radius not in RADII:
        raise unknown_name("radius", radius, RADII)
    if radius == "plain":
        return {name: torch.ones_like(w) for name, w in origin.items()}
    return {
        name: (filter_norms(w).expand_as(w) if radius == "filter" and w.ndim > 1 else w.abs()) + floor
        for name, w in origin.items()
    }


def adaptive_sharpness(
    surface: Surface,
    rho: float = 0.5,
    radius: str = "filter",
    steps: int = 5,
    floor: float = 0.01,
    seed: int = 0,
) -> float:
    r"""Find how much the loss rises at most within an adaptive radius.

    Each step goes to the point of the sphere where the loss's linear approximation is largest,
    :math:`\epsilon \leftarrow \rho\,T^2 g / \lVert T g\rVert_2` with g the gradient at θ + ε. The first is ASAM's own;
    on a convex loss each further one can only rise. The highest loss counts: a lower bound of the maximum, infinite
    where the loss overflows.

    Args:
        surface: of weights.
        rho: radius ρ.
        radius, floor: as of :func:`scales`.
        steps: number of steps.
        seed: of the direction to start in where the gradient is 0.

    Raises:
        ZooError: if ``rho`` or ``steps`` is not positive, or the gradient is not finite at the origin.

    >>> tilted = Surface({"x": torch.zeros(2)}, [lambda point: 3 * point["x"][0] + 4 * point["x"][1]])
    >>> round(adaptive_sharpness(tilted, rho=0.1, radius="plain", steps=1), 4)
    0.5
    """
    if not rho > 0 or steps < 1:
        raise ZooError(f"rho and steps must be positive, got {rho} and {steps}")
    t = scales(surface.origin, radius, floor)
    start, g = surface.gradient(surface.origin)
    if not math.isfinite(start + norm(g)):
        raise ZooError("the loss or its gradient is not finite at the network's weights")
    highest = start
    for _ in range(steps):
        u = {name: t[name] * g[name] for name in g}
        if not math.isfinite(length := norm(u)):
            break
        if not length:
            u = random_direction(surface.origin, seed)
            length = norm(u)
        there = move(surface.origin, {name: t[name] * u[name] for name in u}, rho / length)
        value, g = surface.gradient(there)
        if not math.isfinite(value):
            return math.inf
        highest = max(highest, value)
    return highest - start


@dataclass(frozen=True)
class Curvature:
    """The largest eigenvalue of a Hessian.

    Attributes:
        eigenvalue: Rayleigh quotient of the last direction.
        residual: of the eigenvalue equation, relative to the eigenvalue; an upper bound of its relative error, as
            the distance to some eigenvalue, where the gradient is the loss's own.
        iterations: number of products with the Hessian.

    >>> Curvature(3.0, 0.01, 12).eigenvalue
    3.0
    """

    eigenvalue: float
    residual: float
    iterations: int


def largest_curvature(
    surface: Surface, iterations: int = 20, tolerance: float = 0.01, double_backward: bool = False, seed: int = 0
) -> Curvature:
    r"""Find the largest eigenvalue of the Hessian at the origin by power iteration.

    Most covariance heads have no second derivative, and those with a surrogate gradient have another one than their
    loss. So that all networks are measured alike, products with the Hessian are central differences of gradients in
    float64, :math:`(\nabla L(\theta + hv) - \nabla L(\theta - hv)) / 2h` with :math:`h = 10^{-9}\lVert\theta\rVert_2`:
    small enough that activations do not cross the kinks of ReLU, and exact to about eight digits. Where the eigenvalue
    of largest size is negative, the iteration goes on with the Hessian shifted by it.

    Args:
        surface: of weights, in float64.
        iterations: most products with the Hessian.
        tolerance: of the relative residual, at which the iteration ends.
        double_backward: differentiate twice instead, also in float32.
        seed: of the first direction.

    Raises:
        ZooError: if the surface is not in float64 and ``double_backward`` is not set, or a gradient is not finite.
        RuntimeError: if it is set and a part of the network has no second derivative.

    >>> matrix = torch.diag(torch.tensor([1.0, 5.0, -7.0], dtype=torch.float64))
    >>> saddle = Surface({"x": torch.zeros(3).double()}, [lambda point: point["x"] @ matrix @ point["x"] / 2])
    >>> round(largest_curvature(saddle, iterations=200, tolerance=1e-4).eigenvalue, 3)
    5.0
    """
    if not double_backward and any(t.dtype != torch.float64 for t in surface.origin.values()):
        raise ZooError("differences of gradients need a surface in float64: build it with dtype=torch.float64")
    shift, best = 0.0, Curvature(0.0, math.inf, 0)
    v = random_direction(surface.origin, seed)
    for i in range(1, iterations + 1):
        product = _product(surface, v, double_backward)
        value = dot(v, product)
        residual = norm(move(product, v, -value))
        if not math.isfinite(residual):
            raise ZooError("the gradient is not finite near the network's weights")
        best = Curvature(value, residual / abs(value) if value else math.inf if residual else 0.0, i)
        if best.residual <= tolerance:
            if value >= 0 or shift:
                break
            shift, v = value, random_direction(surface.origin, seed)
            continue
        ahead = move(product, v, -shift)
        length = norm(ahead)
        if not length:
            break
        v = {name: t / length for name, t in ahead.items()}
    return best


def random_direction(origin: Point, seed: int = 0) -> Point:
    """Draw a direction of length 1, uniform over the sphere.

    >>> norm(random_direction({"w": torch.zeros(3, 4, dtype=torch.float64)}))
    1.0
    """
    generator = torch.Generator().manual_seed(seed)
    noise = {name: torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w) for name, w in origin.items()}
    length = norm(noise)
    return {name: d / length for name, d in noise.items()}


def _product(surface: Surface, v: Point, double_backward: bool) -> Point:
    if double_backward:
        return surface.hessian_product(surface.origin, v)
    h = RELATIVE_STEP * (norm(surface.origin) or 1.0)
    _, plus = surface.gradient(move(surface.origin, v, h))
    _, minus = surface.gradient(move(surface.origin, v, -h))
    return {name: (plus[name] - minus[name]) / (2 * h) for name in plus}


def _sharpness(subject: Subject) -> list[Row]:
    rows: list[Row] = []
    batches = list(subject.batches(subject.loss_split(), subject.images or IMAGES))
    for name, model in subject.networks():
        about = {"model": name, "images": sum(len(labels) for _, labels in batches)}
        try:
            surface = weight_surface(model, batches)
            rises = [adaptive_sharpness(surface, rho, steps=STEPS, seed=subject.seed) for rho in RHOS]
            found = largest_curvature(
                weight_surface(model, batches, dtype=torch.float64), ITERATIONS, seed=subject.seed
            )
        except ZooError:  # some exact roots have no finite gradient where eigenvalues coincide
            continue
        values = [(RISE, rho, rise, None) for rho, rise in zip(RHOS, rises)]
        for measure, rho, value, residual in (*values, (CURVATURE, None, found.eigenvalue, found.residual)):
            rows.append({**about, "measure": measure, "rho": rho, "value": value, "residual": residual})
    return rows


def _draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    figure, (left, right) = new_figure(8, 3.4, 2)
    for i, name in enumerate(dict.fromkeys(row["model"] for row in rows)):
        mine = [row for row in rows if row["model"] == name]
        x, y = zip(*((row["rho"], row["value"]) for row in mine if row["measure"] == RISE))
        left.plot(x, y, label=plain(name), markersize=4, **series(i))
        values = [row["value"] for row in mine if row["measure"] == CURVATURE]
        right.plot([plain(name)] * len(values), values, markersize=7, **series(i))
    left.set(xlabel="adaptive radius ρ", ylabel="largest rise of the loss")
    right.set(ylabel="largest eigenvalue of the Hessian")
    right.margins(x=0.5)
    right.axhline(0, color=TEXT, linewidth=0.8)
    add_legend(left)
    return figure


SHARPNESS = Measurement(
    "sharpness",
    _sharpness,
    _draw,
    "Largest rise of the loss within a filter-wise adaptive radius (Kwon et al., ICML 2021) and largest eigenvalue of "
    "the Hessian; for covariance pooling: flatter minima in Wang et al., TPAMI 2023",
)

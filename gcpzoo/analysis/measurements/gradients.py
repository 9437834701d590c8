r"""How the loss and its gradient change along the gradient: Lipschitzness, predictiveness and effective smoothness.

Santurkar et al., "How Does Batch Normalization Help Optimization?", NeurIPS 2018, introduced the probe. Wang et al.,
"What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective", CVPR 2020, and its extension in
TPAMI 2023 compare covariance with average pooling by it. Their released code does not move the weights but the
activations that the stem gives for a batch, and **up** the gradient: by 50 even steps from 0.1 to 75 (ResNet-18; the
learning rate and 750 times it) or 0.045 to 1.5 (MobileNetV2), of the mean loss of 256 images, at every 500th or 1,000th
training step, with batch statistics. Here batch norm keeps its running ones unless a surface is told otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from gcpzoo.analysis.drawing.style import add_legend, new_figure, plain, series
from gcpzoo.analysis.measurements.subject import Measurement, Row, Subject
from gcpzoo.analysis.measurements.surface import Surface, activation_surface, move, norm, stem, weight_surface
from gcpzoo.errors import ZooError

IMAGES = 32
STEM_STEPS = tuple(-float(step) for step in np.linspace(0.1, 75, 10))
"""The range of the papers' released code for ResNet-18, of the mean loss of 256 images; up the gradient."""
STEM_IMAGES = 256
WEIGHT_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Around the learning rates of the zoo's recipes, down the gradient as SGD."""


@dataclass(frozen=True)
class GradientStep:
    r"""What a step along the gradient g of the loss L at θ leads to.

    Attributes:
        step: η: the step is :math:`-\eta g`, so that positive ones go down.
        loss: :math:`L(\theta - \eta g)`.
        change: :math:`\lVert\nabla L(\theta - \eta g) - g\rVert_2`; small where the gradient is predictive.
        distance: :math:`\lVert\eta g\rVert_2`.
        smoothness: change / distance, a lower bound of the Lipschitz constant β of the gradient; ``None`` without a
            distance.

    >>> GradientStep(0.1, 0.4, 0.2, 0.1, 2.0).smoothness
    2.0
    """

    step: float
    loss: float
    change: float
    distance: float
    smoothness: float | None


@dataclass(frozen=True)
class GradientSummary:
    """The range of a probe over all its steps.

    Attributes:
        loss: at the point itself.
        loss_low, loss_high: lowest and highest loss of the steps.
        change: largest change of the gradient, the predictiveness; less is better.
        smoothness: largest change over the distance moved, the "effective β".

    >>> GradientSummary(1.0, 0.5, 0.9, 0.1, 2.0).loss_high
    0.9
    """

    loss: float
    loss_low: float
    loss_high: float
    change: float
    smoothness: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Return plain values.

        >>> GradientSummary(1.0, 0.5, 0.9, 0.1, 2.0).to_dict()["smoothness"]
        2.0
        """
        return asdict(self)


def along_gradient(surface: Surface, steps: Sequence[float]) -> list[GradientStep]:
    """Probe the loss and its gradient along the gradient at the surface's origin.

    Args:
        surface: of weights (:func:`~gcpzoo.analysis.measurements.surface.weight_surface`) or of activations
            (:func:`~gcpzoo.analysis.measurements.surface.activation_surface`).
        steps: step sizes η; negative ones go up the gradient, as in the papers on covariance pooling.

    Returns:
        The origin, as step 0, and one entry for each step.

    Raises:
        ZooError: if there are no steps, or one is 0.

    >>> import torch
    >>> bowl = Surface({"x": torch.tensor([3.0, 4.0])}, [lambda point: point["x"].square().sum()])
    >>> [round(s.loss, 4) for s in along_gradient(bowl, [0.25, 0.5])], along_gradient(bowl, [0.5])[1].smoothness
    ([25.0, 6.25, 0.0], 2.0)
    """
    if not steps or 0 in steps:
        raise ZooError(f"steps must be one or more numbers other than 0, got {list(steps)}")
    loss, g = surface.gradient(surface.origin)
    length = norm(g)
    found = [GradientStep(0.0, loss, 0.0, 0.0, None)]
    for step in steps:
        value, there = surface.gradient(move(surface.origin, g, -step))
        change, distance = norm(move(there, g, -1.0)), abs(step) * length
        found.append(GradientStep(float(step), value, change, distance, change / distance if distance else None))
    return found


def summarize_steps(steps: Sequence[GradientStep]) -> GradientSummary:
    """Give the range of a probe, as the shaded bands of the papers' figures show it.

    >>> summarize_steps([GradientStep(0.0, 1.0, 0.0, 0.0, None), GradientStep(0.1, 0.8, 0.3, 0.1, 3.0)])
    GradientSummary(loss=1.0, loss_low=0.8, loss_high=0.8, change=0.3, smoothness=3.0)
    """
    start, *moved = steps
    ratios = [s.smoothness for s in moved if s.smoothness is not None]
    return GradientSummary(
        start.loss,
        min(s.loss for s in moved),
        max(s.loss for s in moved),
        max(s.change for s in moved),
        max(ratios, default=None),
    )


def _gradients(subject: Subject) -> list[Row]:
    rows: list[Row] = []
    batches = list(subject.batches(subject.loss_split(), subject.images or IMAGES))
    images = sum(len(labels) for _, labels in batches)
    stem_steps = [step * images / STEM_IMAGES for step in STEM_STEPS]  # so that each image moves as far as in a batch
    for about, model in subject.through_training():
        surfaces: list[tuple[str, Surface, Sequence[float]]] = [
            ("weights", weight_surface(model, batches), WEIGHT_STEPS)
        ]
        if (path := _stem(model)) is not None:
            surfaces.insert(0, (f"output of {path}", activation_surface(model, batches, path), stem_steps))
        for point, surface, steps in surfaces:
            for found in along_gradient(surface, steps):
                values = asdict(found)
                about_point = {**about, "images": images, "point": point, "eta": values.pop("step")}
                rows.append({**about_point, **values})
    return rows


def _stem(model: Any) -> str | None:
    try:
        return stem(model)
    except ZooError:  # a backbone whose stem is not clear is measured by its weights alone
        return None


def _draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    points = list(dict.fromkeys(row["point"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    through = len({row["epoch"] for row in rows if row["epoch"] is not None}) > 1
    figure, axes = new_figure(3.6 * 2 * len(points), 3.4, 2 * len(points))
    labels = {"loss": "loss along the gradient", "change": "change of the gradient (ℓ2)"}
    for axis, (point, key) in zip(axes, product(points, labels)):
        for i, name in enumerate(models):
            mine = [row for row in rows if row["model"] == name and row["point"] == point]
            if through:
                _draw_bands(axis, mine, key, i)
            elif mine:
                x, y = zip(*sorted((row["eta"], row[key]) for row in mine))
                axis.plot(x, y, label=plain(name), markersize=4, **series(i))
        axis.set(xlabel="epoch" if through else "step size η", ylabel=labels[key], title=plain(point))
        if key == "loss":
            axis.set_yscale("log")  # networks of very different losses stay readable
    add_legend(axes[0])
    return figure


def _draw_bands(axis: Any, rows: Sequence[Mapping[str, Any]], key: str, i: int) -> None:
    """Shade the range of a value over the steps from each checkpoint; a network of no known epoch is a level band."""
    ranges: dict[float, list[float]] = {}
    for row in rows:
        if row["eta"]:
            ranges.setdefault(math.nan if row["epoch"] is None else row["epoch"], []).append(row[key])
    if not ranges:
        return
    epochs = sorted(ranges)
    low, high = ([f(ranges[epoch]) for epoch in epochs] for f in (min, max))
    look, label = series(i), plain(rows[0]["model"])
    if len(epochs) == 1 and math.isnan(epochs[0]):
        axis.axhspan(low[0], high[0], color=look["color"], alpha=0.2, label=label)
        return
    axis.fill_between(epochs, low, high, color=look["color"], alpha=0.2, linewidth=0)
    axis.plot(epochs, high, label=label, markersize=4, **look)


GRADIENTS = Measurement(
    "gradients",
    _gradients,
    _draw,
    "Loss and change of the gradient along the gradient, by the activations after the stem and by the weights: the "
    "plots of Lipschitzness and predictiveness of Wang et al., CVPR 2020, after Santurkar et al., NeurIPS 2018, "
    "figure 4",
)

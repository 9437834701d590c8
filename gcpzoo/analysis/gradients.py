r"""How the loss and its gradient change along the gradient: Lipschitzness, predictiveness and effective smoothness.

Santurkar et al., "How Does Batch Normalization Help Optimization?", NeurIPS 2018, introduced the probe. Wang et al.,
"What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective", CVPR 2020, and its extension in
TPAMI 2023 compare covariance with average pooling by it: there the point is not the weights but the activations that
the stem gives for a batch, which move **up** the gradient, in the authors' released code by 50 even steps from 0.1 to 75
(ResNet-18; the learning rate and 750 times it) or 0.045 to 1.5 (MobileNetV2) of the mean loss of 256 images, at every
500th or 1,000th training step and with batch statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gcpzoo.analysis.surface import Surface, move, norm
from gcpzoo.errors import ZooError


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
        surface: of weights (:func:`~gcpzoo.analysis.surface.weight_surface`) or of activations
            (:func:`~gcpzoo.analysis.surface.activation_surface`).
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

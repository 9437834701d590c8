"""How far a network's probabilities can be trusted: calibration error and temperature scaling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.optimize import brentq
from torch import Tensor
from torch.nn.functional import cross_entropy

from gcpzoo.errors import ZooError

BINS = 15
Bin = tuple[float, float, int]
"""Mean confidence, share that is right, number of images."""


def reliability_bins(confidence: Any, right: Any, bins: int = BINS) -> dict[int, Bin]:
    """Compare confidence with accuracy in equal bins ``((b - 1)/bins, b/bins]``.

    Args:
        confidence: probability of the predicted class, ``(N,)``.
        right: whether that class is the true one, ``(N,)``.
        bins: number of bins.

    Returns:
        Number of the bin, from 1, → mean confidence, share that is right and number of images; bins without images are
        left out.

    >>> reliability_bins([0.5, 0.5, 0.9], [True, False, True], bins=10)
    {5: (0.5, 0.5, 2), 9: (0.9, 1.0, 1)}
    """
    confidence, right = np.asarray(confidence, float), np.asarray(right, float)
    place = np.clip(np.ceil(confidence * bins).astype(int), 1, bins)
    return {
        int(b): (float(confidence[place == b].mean()), float(right[place == b].mean()), int((place == b).sum()))
        for b in np.unique(place)
    }


def calibration_error(found: Iterable[Bin]) -> float:
    r"""Expected calibration error, :math:`\sum_b \tfrac{n_b}N\,\lvert\text{accuracy}_b-\text{confidence}_b\rvert`.

    Args:
        found: values of :func:`reliability_bins`.

    Source: Naeini et al., AAAI 2015; Guo et al., ICML 2017, eq. (3).

    >>> round(calibration_error([(0.5, 0.5, 2), (0.9, 1.0, 2)]), 3)
    0.05
    """
    rows = list(found)
    return sum(n * abs(c - r) for c, r, n in rows) / sum(n for _, _, n in rows)


def calibration(logits: Tensor, labels: Tensor, temperature: float = 1.0, bins: int = BINS) -> dict[str, Any]:
    """Measure the calibration of logits, divided by a temperature, in float64.

    Args:
        logits: ``(N, num_classes)``.
        labels: ``(N,)``.
        temperature: the logits are divided by it.
        bins: of the expected calibration error.

    Returns:
        ``images``, ``confidence`` (mean), ``accuracy``, ``ece``, ``nll`` (mean negative log-likelihood in nats) and the
        ``bins`` of :func:`reliability_bins`.

    >>> import torch
    >>> found = calibration(torch.tensor([[4.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1]))
    >>> round(found["ece"], 3), round(found["nll"], 3)
    (0.232, 1.018)
    """
    z, y = logits.double().cpu() / temperature, labels.cpu()
    confidence, predicted = z.softmax(1).max(1)
    found = reliability_bins(confidence.numpy(), (predicted == y).numpy(), bins)
    return {
        "images": len(y),
        "confidence": float(confidence.mean()),
        "accuracy": float((predicted == y).double().mean()),
        "ece": calibration_error(found.values()),
        "nll": float(cross_entropy(z, y)),
        "bins": found,
    }


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    r"""Find the temperature T whose :math:`\text{softmax}(z / T)` has the least negative log-likelihood.

    It changes no decision, only how sure the network is of it. The likelihood is convex in 1/T, so there is one
    minimum, where :math:`\sum_i \big(\sum_k p_{ik} z_{ik} - z_{i y_i}\big) = 0`; computed in float64.

    Args:
        logits: ``(N, num_classes)``, of images that the network was neither trained on nor will be tested on.
        labels: ``(N,)``.

    Raises:
        ZooError: if there is no minimum: no image is misclassified, so that T would be 0; or the true classes' logits
            are no higher than the others, so that it would be infinite.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.

    >>> import torch
    >>> right_in_three_of_four = torch.tensor([[4.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1])
    >>> round(fit_temperature(*right_in_three_of_four), 4)  # 4 / log 3: the network is as sure as it is right
    3.641
    """
    z, y = logits.double().cpu(), labels.cpu()
    if not len(y) or not z.isfinite().all():
        raise ZooError("a temperature needs images with finite logits, got " + ("none" if not len(y) else "others"))
    true = z.gather(1, y[:, None])[:, 0]

    def slope(inverse: float) -> float:
        return float(((inverse * z).softmax(1).mul(z).sum(1) - true).mean())

    if (true >= z.max(1).values).all():
        raise ZooError(f"a temperature needs images that are misclassified, but all {len(y):,} are right")
    if slope(0.0) >= 0:
        raise ZooError("a temperature needs logits that are highest for the true classes, on average")
    most = 1.0
    while slope(most) <= 0:
        most *= 2
    return 1 / float(brentq(slope, 0.0, most, xtol=1e-12, rtol=1e-10))

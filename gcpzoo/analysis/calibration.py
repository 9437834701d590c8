"""How far a network's probabilities can be trusted: temperature scaling."""

from __future__ import annotations

from scipy.optimize import brentq
from torch import Tensor

from gcpzoo.errors import ZooError


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

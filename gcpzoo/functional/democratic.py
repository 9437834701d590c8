"""Democratic aggregation: positions weighted so that each contributes alike to the second moment."""

from __future__ import annotations

import torch
from torch import Tensor

from gcpzoo.functional.checks import check_count
from gcpzoo.functional.covariance import as_matrix, unit_scale
from gcpzoo.functional.weighting import check_weights


def _unless_zero(a: Tensor) -> Tensor:
    """1 in place of zeros."""
    return torch.where(a == 0, 1, a)


def gamma_democratic(x: Tensor, gamma: float = 0.5, iterations: int = 10, weights: Tensor | None = None) -> Tensor:
    r"""Sum of the outer products of the positions, weighted by damped Sinkhorn steps.

    .. math:: K_{ij} = (x_i^\top x_j)^2,\quad c = K\mathbf 1,\qquad
              \alpha \leftarrow \alpha\circ\sqrt{c^\gamma/(\alpha\circ K\alpha)}\ \text{from}\ \mathbf 1,\qquad
              \tfrac1M\sum_i\alpha_i x_ix_i^\top

    At the fixed point a position's contribution :math:`\alpha_i(K\alpha)_i` is :math:`c_i^\gamma`: the same for all
    with :math:`\gamma = 0`, that of the plain sum with :math:`\gamma = 1`.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``, not centered.
        gamma: :math:`\gamma` in [0, 1].
        iterations: number of steps; the gradient goes through all.
        weights: ``(B, M)``, as :func:`reweight` takes them: a position of weight w counts w times.

    Returns:
        ``(B, d, d)``, up to a factor: features are divided by their largest entry, and sums over positions are means.
        A position of zeros contributes nothing.

    Raises:
        ZooError: weights that :func:`reweight` refuses.

    >>> import torch
    >>> x = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])  # two positions, one of nine times the energy
    >>> gamma_democratic(x, gamma=0.0, iterations=50)
    tensor([[[0.7071, 0.0000],
             [0.0000, 0.7071]]])

    Source: Lin, Maji and Koniusz, ECCV 2018, section 3.
    """
    check_count("iterations", iterations)
    x = as_matrix(x)
    w = x.new_ones(x.shape[0], x.shape[2])
    if weights is not None:
        check_weights(x, weights)
        w = weights.to(x.dtype)
        x = torch.where(w[:, None] > 0, x, 0)
    w = w / w.sum(1, keepdim=True)
    x = unit_scale(x)
    kernel = (x.mT @ x).square()
    total = torch.einsum("bij,bj->bi", kernel, w)
    target = _unless_zero(total) ** gamma
    alpha = torch.ones_like(w)
    for _ in range(iterations):
        share = alpha * torch.einsum("bij,bj->bi", kernel, w * alpha)
        alpha = alpha * (target / _unless_zero(share)).sqrt()
    return (x * (w * alpha)[:, None]) @ x.mT

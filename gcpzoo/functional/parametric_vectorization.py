"""Variances along learned directions."""

from __future__ import annotations

from torch import Tensor

from gcpzoo.functional.covariance import as_matrix, centered
from gcpzoo.functional.weighting import reweight


def parametric_vector(
    x: Tensor, directions: Tensor, bias: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    r"""Unbiased variances of the features along directions, :math:`z_j = \lVert X_c^\top w_j\rVert^2/(M - 1)`.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        directions: columns :math:`w_j`, ``(d, p)``.
        bias: b, ``(p,)``; with it the mean over the positions of :math:`(w_j^\top x + b_j)^2` instead, not centered.
        weights: ``(B, M)``, as :func:`reweight` takes them; their sum takes the place of M.

    Returns:
        ``(B, p)``, without the covariance matrix. Zeros, for the variances, where M is 1: the divisor is at least 1.

    >>> import torch
    >>> parametric_vector(torch.tensor([[[1.0, 3.0], [2.0, 2.0]]]), torch.eye(2))
    tensor([[2., 0.]])

    Source: Yu and Salzmann, ECCV 2018, section 3.
    """
    x = as_matrix(x)
    w = directions.to(x.dtype)
    count = x.new_full((1, 1), x.shape[2]) if weights is None else weights.to(x.dtype).sum(1, keepdim=True)
    if weights is not None:
        x = reweight(x, weights)
    if bias is not None:
        return (w.mT @ x + bias.to(x.dtype)[:, None]).square().mean(2)
    return (w.mT @ centered(x)).square().mean(2) * (count / (count - 1).clamp_min(1))

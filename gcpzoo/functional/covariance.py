"""Second moments of feature maps, and the vector of a symmetric matrix."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gcpzoo.functional.tracing import is_traced


def as_matrix(x: Tensor) -> Tensor:
    """Flatten a feature map ``(B, d, H, W)`` to the data matrix ``(B, d, M)``; leave ``(B, d, M)`` as it is.

    Raises:
        ValueError: if ``x`` has other dimensions, no channel or no position.

    >>> import torch
    >>> as_matrix(torch.ones(2, 8, 3, 3)).shape
    torch.Size([2, 8, 9])
    """
    if x.ndim == 4:
        x = x.flatten(2)
    if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] == 0:
        raise ValueError(f"expected features (B, d, M) or (B, d, H, W) with d, M > 0, got shape {tuple(x.shape)}")
    return x


def centered(x: Tensor) -> Tensor:
    """Subtract from features ``(B, d, M)`` their mean over positions.

    >>> import torch
    >>> centered(torch.tensor([[[1.0, 3.0]]]))
    tensor([[[-1.,  1.]]])
    """
    return x - x.mean(2, keepdim=True)


def unit_scale(x: Tensor) -> Tensor:
    """Divide each sample of ``(B, d, M)`` by its largest absolute entry, as by a constant; leave zeros.

    For functions that do not depend on the features' scale: value and gradient stay, and no power over- or underflows.

    >>> import torch
    >>> unit_scale(torch.tensor([[[1e-30, -4e-30]]]))
    tensor([[[ 0.2500, -1.0000]]])
    """
    largest = x.detach().abs().amax((1, 2), keepdim=True)
    return x / torch.where(largest == 0, 1, largest)


def covariance(x: Tensor, center: bool = True) -> Tensor:
    r"""Biased sample covariance of the feature vectors of each map.

    .. math:: \Sigma = \tfrac1M \sum_{p=1}^{M} (x_p - \bar x)(x_p - \bar x)^\top

    Args:
        x: features, ``(B, d, M)`` or ``(B, d, H, W)`` with ``M = H*W`` positions.
        center: subtract the mean; ``False`` gives the second moment :math:`XX^\top/M` of bilinear pooling.

    Returns:
        ``(B, d, d)``, symmetric positive semi-definite, rank at most ``min(d, M - 1)``, in the dtype of ``x``.

    Raises:
        ValueError: if ``x`` has no position (``M == 0``) or other dimensions.

    >>> import torch
    >>> covariance(torch.tensor([[[1.0, 3.0], [2.0, 2.0]]]))
    tensor([[[1., 0.],
             [0., 0.]]])

    Source: Li et al., ICCV 2017, eq. (1). The factor is 1/M, not 1/(M-1), as in all released models.
    """
    x = as_matrix(x)
    if center:
        x = centered(x)
    return x @ x.mT / x.shape[2]


@lru_cache(maxsize=16)
def _cached_index(d: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # an index first made during evaluation must serve training too
        return _index(d, device)


def _index(d: int, device: torch.device) -> Tensor:
    row, column = torch.triu_indices(d, d, device=device).unbind()
    return row * d + column


class _Triangle(torch.autograd.Function):
    """Gather whose gradient writes every entry once; autograd's own adds into its buffer."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = a.shape
        return a.flatten(1).gather(1, index.expand(a.shape[0], -1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        dense = grad.new_zeros(ctx.shape).flatten(1)
        return dense.scatter_(1, index.expand(grad.shape[0], -1), grad).view(ctx.shape), None


def triangle(a: Tensor) -> Tensor:
    """Upper triangle with the diagonal, row by row, off-diagonals not scaled.

    Args:
        a: ``(B, d, d)``.

    Returns:
        ``(B, d(d+1)/2)``.

    >>> import torch
    >>> triangle(torch.tensor([[[1.0, 2.0], [2.0, 3.0]]]))
    tensor([[1., 2., 3.]])
    """
    if is_traced(a):  # a tracer's index must not stay in the cache
        return a.flatten(1).index_select(1, _index(a.shape[1], a.device))
    out: Tensor = _Triangle.apply(a, _cached_index(a.shape[1], a.device))
    return out

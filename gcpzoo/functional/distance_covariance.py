"""Brownian distance covariance of the channels of a map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gcpzoo.functional.covariance import as_matrix
from gcpzoo.functional.precision import hand_written
from gcpzoo.functional.small_side import symmetric_product
from gcpzoo.functional.tracing import is_exported

FLOOR = 1e-5
"""Added under the root by the released code: the distance of a channel to itself is 3.2e-3."""


def _scaled(x: Tensor, temperature: Tensor) -> Tensor:
    """Channels as points, moved to their common mean, which no distance notices, and scaled by the temperature.

    What is moved is smaller, so that less is lost where distances are differences of large products.
    """
    return (x - x.mean(1, keepdim=True)).mul_((0.5 * temperature).exp())


def _distances(y: Tensor) -> Tensor:
    r"""Distances between the rows of ``(B, d, M)``, by how much they are above that of a row to itself.

    Their constant part is centered away; :math:`\sqrt{D + f} - \sqrt f = D / (\sqrt{D + f} + \sqrt f)` keeps the digits
    of small ones.
    """
    e = symmetric_product(y, y.mT)
    square = e.diagonal(dim1=1, dim2=2).clone()
    e.mul_(-2).add_(square[:, :, None]).add_(square[:, None])  # exactly 0 on the diagonal
    e.clamp_(min=0)
    return e.div_((e + FLOOR).sqrt_().add_(FLOOR**0.5))


def _double_centered(e: Tensor) -> Tensor:
    """A symmetric matrix without its means of rows and columns."""
    mean = e.mean(2)
    centered = e - mean[:, :, None]
    return centered.sub_((mean - mean.mean(1, keepdim=True))[:, None])


class _DistanceCovariance(torch.autograd.Function):
    """``x, temperature ->`` the matrix. It saves the features and the distances."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, temperature: Tensor) -> Tensor:
        e = _distances(_scaled(x, temperature))
        ctx.save_for_backward(x, temperature, e)
        return _double_centered(e)

    @staticmethod
    @hand_written
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, temperature, e = ctx.saved_tensors
        y = _scaled(x, temperature)
        k = _double_centered(grad + grad.mT).div_(e + FLOOR**0.5)
        k.masked_fill_(e == 0, 0)  # at distance 0, as on the diagonal: large terms that cancel
        dy = torch.baddbmm(k.sum(2)[:, :, None] * y, k, y, alpha=-1)
        by_temperature = 0.5 * (dy * y).sum().reshape(temperature.shape)
        return dy.mul_((0.5 * temperature).exp()), by_temperature


def distance_covariance(x: Tensor, temperature: Tensor) -> Tensor:
    r"""Brownian distance covariance matrix of the channels, from their Euclidean distances over the positions.

    .. math:: G = XX^\top,\quad D_{ij} = \max(G_{ii} + G_{jj} - 2G_{ij},\,0),\quad
              E = \sqrt{e^\tau D + 10^{-5}},\quad A = PEP,\quad P = I - \mathbf 1\mathbf 1^\top/d

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``; sums over positions, so that the result grows with their number.
        temperature: :math:`\tau`, one number of shape ``(1, 1)``.

    Returns:
        ``(B, d, d)``, symmetric; rows sum to 0. No matrix is larger than that or than the features. The gradient is
        finite everywhere; a pair of equal channels has none.

    >>> import torch
    >>> x = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]])  # two channels at distance 5
    >>> distance_covariance(x, torch.zeros(1, 1)).round(decimals=2)
    tensor([[[-2.5000,  2.5000],
             [ 2.5000, -2.5000]]])

    Source: Xie et al., CVPR 2022, section 3.
    """
    x = as_matrix(x)
    temperature = temperature.to(x.dtype)
    if is_exported():
        return _double_centered(_distances(_scaled(x, temperature)))
    out: Tensor = _DistanceCovariance.apply(x, temperature)
    return out

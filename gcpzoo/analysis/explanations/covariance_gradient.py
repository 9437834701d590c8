"""The gradient with respect to a covariance, found from the gradient with respect to the features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TOLERANCE = 1e-4
"""Share of a gradient that may be no gradient with respect to the covariance."""


def is_of_covariance(c: Tensor, gradient: Tensor) -> bool:
    r"""Say whether a gradient is :math:`\tfrac2M G\,c` with a symmetric G, as of a function of :math:`c\,c^\top` alone.

    Args:
        c: data matrices ``(groups, d, M)``.
        gradient: with respect to them, ``(groups, d, M)``.

    >>> c = torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])
    >>> is_of_covariance(c, torch.diag(torch.tensor([1.0, 2.0])) @ c), is_of_covariance(c, torch.ones_like(c))
    (True, False)
    """
    product = c.mT @ gradient
    asymmetric = torch.linalg.norm(product - product.mT) > TOLERANCE * torch.linalg.norm(product)
    _, _, vh = _range(c)
    outside = torch.linalg.norm(gradient - gradient @ vh.mT @ vh) > TOLERANCE * torch.linalg.norm(gradient)
    return not bool(asymmetric | outside)


def matrix_gradient(c: Tensor, gradient: Tensor) -> Tensor:
    r"""Find the symmetric G ``(groups, d, d)`` of least norm with :math:`\text{gradient} = \tfrac2M G\,c`.

    .. math:: G = G'P + PG' - PG'P

    with P the projection onto the range of c, and :math:`G'P` what the pseudo-inverse of c gives.

    Args:
        c: data matrices ``(groups, d, M)``.
        gradient: with respect to them, see :func:`is_of_covariance`.

    >>> c = torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])
    >>> matrix_gradient(c, torch.diag(torch.tensor([1.0, 2.0])) @ c)[0].round(decimals=3).abs()
    tensor([[1., 0.],
            [0., 2.]])
    """
    u, reciprocal, vh = _range(c)
    right = c.shape[2] / 2 * gradient @ (vh.mT * reciprocal[:, None]) @ u.mT  # G'P
    g = right + right.mT - u @ (u.mT @ right)
    return (g + g.mT) / 2


def _range(c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors and reciprocals of singular values of ``(groups, d, M)``, both zero where it has no range."""
    u, s, vh = torch.linalg.svd(c, full_matrices=False)
    kept = s > math.sqrt(torch.finfo(c.dtype).eps * max(c.shape[1:])) * s[:, :1]
    return u * kept[:, None], torch.where(kept, 1 / s, 0), vh * kept[:, :, None]

"""The covariance as released double-precision models compute it."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from gcpzoo.functional.covariance import as_matrix


def _as_float32(value: float) -> float:
    """Round a number to float32."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def _weights(m: int) -> tuple[float, float]:
    """c and c + bM for M positions."""
    b = _as_float32(-1 / m / m)
    c = _as_float32(b + _as_float32(1 / m)) - b
    return c, c + b * m


def released_covariance(x: Tensor) -> Tensor:
    r"""The covariance in float64 with the centering matrix of the released double-precision heads, to the last digit.

    Song et al. (ICCV 2021, TPAMI 2022) and Chen et al. (ICLR 2025) keep the matrix
    :math:`\hat I = \tfrac1M(I - \tfrac1M\mathbf 1\mathbf 1^\top)` in float32. Rounded, its rows do not sum to zero, and
    a share of the mean's outer product, within ±1e-7, remains:

    .. math:: X\hat IX^\top = c\,X_cX_c^\top + M(c + bM)\,\bar x\bar x^\top,\qquad
              b = \mathrm{fl}_{32}(-1/M^2),\quad c = \mathrm{fl}_{32}(b + 1/M) - b

    Where M is a power of two this is the covariance. At 7×7 positions the share is -2.3e-8. It changes the output of
    ``svd_pade`` by 4e-5 and its gradient by 2e-4, more than all other differences from these models together.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.

    Returns:
        ``(B, d, d)`` in float64, symmetric; indefinite where the share is negative, as at 7×7 and 14×14 positions.

    >>> import torch
    >>> released_covariance(torch.ones(1, 1, 49)).item()  # the covariance is 0
    -2.2...e-08
    """
    x = as_matrix(x).double()
    m = x.shape[2]
    c, share = _weights(m)
    mean = x.mean(2, keepdim=True)
    centered = x - mean
    return c * centered @ centered.mT + m * share * mean @ mean.mT


def released_centering(x: Tensor) -> Tensor:
    r"""Features times that centering matrix, :math:`X\hat I = cX_c + (c + bM)\bar x\mathbf 1^\top`, in float64.

    Args:
        x: ``(B, d, M)``.

    Returns:
        ``(B, d, M)``; times :math:`X^\top` it is :func:`released_covariance`.

    >>> import torch
    >>> released_centering(torch.tensor([[[1.0, 3.0]]]))
    tensor([[[-0.5000,  0.5000]]], dtype=torch.float64)
    """
    x = x.double()
    c, share = _weights(x.shape[2])
    mean = x.mean(2, keepdim=True)
    return torch.add(share * mean, x - mean, alpha=c)

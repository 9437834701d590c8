"""Cross-covariance of token features, and its normalization by the largest singular value."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gcpzoo.functional.checks import check_choice

MEANS = ("scalar", "channel")


def cross_covariance(a: Tensor, b: Tensor, mean: str = "scalar") -> Tensor:
    r"""Cross-covariance :math:`\tfrac1N\sum_n (a_n - \bar a)(b_n - \bar b)^\top` of two sets of features.

    Args:
        a, b: ``(..., d, N)``, N tokens.
        mean: what is subtracted: ``"scalar"``, one mean over all d·N entries, as in all released models, or
            ``"channel"``, each channel's mean over tokens, the covariance in the strict sense.

    Returns:
        ``(..., d, d)``.

    Raises:
        ValueError: unknown ``mean``.

    >>> import torch
    >>> a = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    >>> cross_covariance(a, 10 * a, mean="channel")
    tensor([[10.,  0.],
            [ 0.,  0.]])

    Source: Xie et al., "So-ViT: Mind Visual Tokens for Vision Transformer", arXiv 2104.10935.
    """
    check_choice("mean", mean, MEANS)
    dims = (-2, -1) if mean == "scalar" else (-1,)
    return (a - a.mean(dims, keepdim=True)) @ (b - b.mean(dims, keepdim=True)).mT / a.shape[-1]


def svpn(a: Tensor, start: Tensor, alpha: float = 0.5) -> Tensor:
    r"""Singular value power normalization with one singular value, found by one power iteration.

    .. math:: u = \frac{Av_0}{\lVert Av_0\rVert},\quad v = \frac{A^\top u}{\lVert A^\top u\rVert},\quad
              \sigma = u^\top Av,\qquad
              \sigma^\alpha uv^\top + \frac{A - \sigma uv^\top}{\sigma^{1-\alpha} + 10^{-5}}

    Args:
        a: ``(..., m, n)``.
        start: :math:`v_0`, ``(n,)``.
        alpha: the power.

    Returns:
        ``(..., m, n)``; zeros for a zero matrix.

    >>> import torch
    >>> svpn(torch.diag(torch.tensor([4.0, 1.0])), start=torch.tensor([1.0, 0.0]))
    tensor([[2.0000, 0.0000],
            [0.0000, 0.5000]])

    Source: Xie et al., arXiv 2104.10935.
    """
    u = F.normalize(a @ start[:, None], dim=-2)
    v = F.normalize(a.mT @ u, dim=-2)
    sigma = (u.mT @ a @ v).clamp_min(1e-12)
    rest = 1 / (sigma ** (1 - alpha) + 1e-5)
    return a * rest + (sigma**alpha - sigma * rest) * (u @ v.mT)

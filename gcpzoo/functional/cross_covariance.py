"""Cross-covariance of token features, and its normalization by the largest singular value."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.functional.checks import check_choice
from gcpzoo.functional.weighting import reweight

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


def multi_head_cross_covariance(
    pairs: Tensor, heads: int, mean: str = "scalar", token_mask: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    r"""Cross-covariance of each pair of heads, of tokens that may be dropped and weighted.

    .. math:: C_h = \operatorname{cross\_covariance}(Q_h\operatorname{diag}m_h,\ K_h\operatorname{diag}m_h)

    The mask comes before the mean is taken away, so that a dropped token counts as one of zeros. Weights come after it:
    a token of weight 0 does not count at all.

    Args:
        pairs: ``(B, 2·H·k, N)``: the k channels of :math:`Q_1 \dots Q_H`, then those of :math:`K_1 \dots K_H`.
        heads: H.
        mean: see :func:`cross_covariance`.
        token_mask: factors m ``(B, H, N)``, in training 0 or 1/(1 - p).
        weights: ``(B, N)``, see :func:`~gcpzoo.functional.reweight`.

    Returns:
        ``(B, H, k, k)``.

    Raises:
        ZooError: other shapes.

    >>> import torch
    >>> pairs = torch.tensor([[[1.0, 3.0, 5.0], [2.0, 2.0, 8.0]]])
    >>> multi_head_cross_covariance(pairs, heads=1)
    tensor([[[[4.]]]])
    >>> multi_head_cross_covariance(pairs, heads=1, token_mask=torch.tensor([[[1.0, 1.0, 0.0]]])).round(decimals=3)
    tensor([[[[0.8890]]]])

    Source: Wang et al., "DropCov: A Simple yet Effective Method for Improving Deep Architectures", NeurIPS 2022.
    """
    if pairs.ndim != 3 or pairs.shape[1] % (2 * heads):
        raise ZooError(f"pairs must be (B, {2 * heads}·k, N) for {heads} heads, got shape {tuple(pairs.shape)}")
    b, rows, n = pairs.shape
    parts = pairs.reshape(b, 2, heads, rows // (2 * heads), n)
    if token_mask is not None:
        if token_mask.shape != (b, heads, n):
            raise ZooError(f"token_mask must be (B, H, N) = {(b, heads, n)}, got shape {tuple(token_mask.shape)}")
        parts = parts * token_mask[:, None, :, None].to(parts.dtype)
    if weights is not None:
        parts = reweight(parts.flatten(1, 3), weights).reshape(parts.shape)
    q, k = parts.unbind(1)
    return cross_covariance(q, k, mean)


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

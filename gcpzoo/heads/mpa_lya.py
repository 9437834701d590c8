"""Matrix Padé approximant and matrix Taylor polynomial with the Lyapunov gradient."""

from __future__ import annotations

from typing import ClassVar

from gcpzoo.heads.base import RootHead
from gcpzoo.heads.registry import register


@register("mpa_lya")
class MpaLya(RootHead):
    r"""MPA-Lya: the root by the [5/5] Padé approximant, its gradient by 8 steps of a Lyapunov solver.

    .. math:: \operatorname{tri}\bigl(\sqrt{\lVert\Sigma\rVert_F}\,Q(Z)^{-1}P(Z)\bigr),
              \qquad Z = I - \Sigma/\lVert\Sigma\rVert_F,\qquad P(z)/Q(z)\approx\sqrt{1-z}

    Output size d(d+1)/2. ``iterations`` only matters with another ``root``.

    Args:
        in_features, dim, root, iterations, kwargs: see :class:`~gcpzoo.heads.base.RootHead`.

    When to use: with more positions than channels, where it is nearer to the root than five Newton–Schulz steps. With
    fewer it is worse: zero eigenvalues come out as 0.09 √‖Σ‖.

    Released code: normalizes the inverse root's backward pass over the whole batch, which mixes samples.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> x = torch.tensor([[[[3.0, -3.0, 3.0, -3.0]], [[2.0, 2.0, -2.0, -2.0]]]])
    >>> create_head("mpa_lya", in_features=2)(x).round(decimals=3)
    tensor([[3., 0., 2.]])

    Source: Song et al., "Fast Differentiable Matrix Square Root", ICLR 2022.
    """

    default_root: ClassVar[str] = "mpa_lya"


@register("mtp_lya")
class MtpLya(RootHead):
    r"""MTP-Lya: the root by the Taylor polynomial of degree 10, its gradient by 8 steps of a Lyapunov solver.

    .. math:: \operatorname{tri}\Bigl(\sqrt{\lVert\Sigma\rVert_F}\sum_{k=0}^{10}\tbinom{1/2}{k}(-Z)^k\Bigr)

    Output size d(d+1)/2. ``iterations`` only matters with another ``root``.

    Args:
        in_features, dim, root, iterations, kwargs: see :class:`~gcpzoo.heads.base.RootHead`.

    When to use: where a linear system cannot be solved, as in ONNX: it needs matrix products only. It is less accurate
    for small eigenvalues; zeros come out as 0.18 √‖Σ‖.

    Released code: the sum overwrites the identity matrix that the backward pass uses (gradient 99.7 % wrong); corrected
    here.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> x = torch.tensor([[[[3.0, -3.0, 3.0, -3.0]], [[2.0, 2.0, -2.0, -2.0]]]])
    >>> create_head("mtp_lya", in_features=2)(x).round(decimals=2)
    tensor([[3., 0., 2.]])

    Source: Song et al., "Fast Differentiable Matrix Square Root", ICLR 2022.
    """

    default_root: ClassVar[str] = "mtp_lya"

"""Riemannian classifiers over covariances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gcpzoo.functional import log_cholesky
from gcpzoo.functional.checks import check_positive
from gcpzoo.heads.base import RootHead, SecondOrderHead
from gcpzoo.heads.registry import register


@register("pow_emlr")
class PowEMLR(RootHead):
    r"""Pow-EMLR: the Newton–Schulz root in float64, read as a classifier in the power-Euclidean geometry.

    .. math:: \operatorname{tri}Q,\qquad Q \approx \Sigma^{1/2}

    With a linear classifier behind it this is ``isqrt``. Output size d(d+1)/2.

    Args:
        in_features, dim, root, iterations, kwargs: see :class:`~gcpzoo.heads.base.RootHead`.

    When to use: as the reference for the three other geometries.

    Released code: no known error.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> x = torch.tensor([[[[3.0, -3.0, 3.0, -3.0]], [[2.0, 2.0, -2.0, -2.0]]]])
    >>> create_head("pow_emlr", in_features=2, iterations=10)(x)
    tensor([[3., 0., 2.]])

    Source: Chen et al., "Understanding Matrix Function Normalizations in Covariance Pooling through the Lens of
    Riemannian Geometry", ICLR 2025.
    """

    def normalize(self, x: Tensor) -> Tensor:
        return self.square_root(x.double()).to(x.dtype)


@register("scale_pow_emlr")
class ScalePowEMLR(PowEMLR):
    r"""ScalePow-EMLR: twice the Newton–Schulz root, the factor 1/α of the scaled power-Euclidean metric.

    .. math:: \operatorname{tri}(2Q),\qquad Q \approx \Sigma^{1/2}

    Output size d(d+1)/2. Arguments as ``pow_emlr``.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> x = torch.tensor([[[[3.0, -3.0, 3.0, -3.0]], [[2.0, 2.0, -2.0, -2.0]]]])
    >>> create_head("scale_pow_emlr", in_features=2, iterations=10)(x)
    tensor([[6., 0., 4.]])

    Source: Chen et al., "Understanding Matrix Function Normalizations in Covariance Pooling through the Lens of
    Riemannian Geometry", ICLR 2025.
    """

    def normalize(self, x: Tensor) -> Tensor:
        return 2 * super().normalize(x)


@register("pow_tmlr")
class PowTMLR(PowEMLR):
    r"""Pow-TMLR: the Newton–Schulz root as a tangent vector at the identity in the power geometry.

    .. math:: \operatorname{tri}(2(Q - I)),\qquad Q \approx \Sigma^{1/2}

    Output size d(d+1)/2. Arguments as ``pow_emlr``.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> x = torch.tensor([[[[3.0, -3.0, 3.0, -3.0]], [[2.0, 2.0, -2.0, -2.0]]]])
    >>> create_head("pow_tmlr", in_features=2, iterations=10)(x)
    tensor([[4., 0., 2.]])

    Source: Chen et al., "Understanding Matrix Function Normalizations in Covariance Pooling through the Lens of
    Riemannian Geometry", ICLR 2025.
    """

    def normalize(self, x: Tensor) -> Tensor:
        q = super().normalize(x)
        return 2 * (q - torch.eye(q.shape[1], dtype=q.dtype, device=q.device))


@register("cho_tmlr")
class CholeskyTMLR(SecondOrderHead):
    r"""Cho-TMLR: log-Cholesky coordinates of the covariance, a tangent vector in that geometry, in float64.

    .. math:: \operatorname{tri}(K + K^\top),\qquad K = \lfloor L\rfloor + \log\operatorname{diag}L,\qquad
              LL^\top = \Sigma + \epsilon I

    Output size d(d+1)/2.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.
        eps: ε.

    When to use: to compare geometries; needs no eigenvalues, but depends on the order of the channels.

    Released code: its covariance can be indefinite, and then it stops; see :func:`~gcpzoo.functional.log_cholesky`.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> x = torch.tensor([[[[1.0, -1.0, 1.0, -1.0]], [[1.0, 1.0, -1.0, -1.0]]]])  # covariance: the identity
    >>> create_head("cho_tmlr", in_features=2, eps=3.0)(x)
    tensor([[1.3863, 0.0000, 1.3863]])

    Source: Chen et al., "Understanding Matrix Function Normalizations in Covariance Pooling through the Lens of
    Riemannian Geometry", ICLR 2025; the chart: Lin, SIAM J. Matrix Anal. Appl. 2019.
    """

    def __init__(
        self, in_features: int, dim: int | Sequence[int] | None = None, eps: float = 1e-6, **kwargs: Any
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        check_positive("eps", eps)
        self.eps = eps

    def normalize(self, x: Tensor) -> Tensor:
        return log_cholesky(x, self.eps)

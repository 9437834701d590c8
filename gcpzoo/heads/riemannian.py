"""Riemannian classifiers over covariances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.functional import log_cholesky
from gcpzoo.heads.base import RootHead, SecondOrderHead, register


@register("pow_emlr")
class PowEMLR(RootHead):
    r"""Power-Euclidean multinomial logistic regression: :math:`\operatorname{tri}Q` of the root Q, in float64.

    With a linear classifier behind it this is ``isqrt``, read as a classifier in the power-Euclidean geometry. Output
    size d(d+1)/2.

    Args:
        in_features, dim, root, iterations, kwargs: see :class:`~gcpzoo.heads.base.RootHead`.

    When to use: the reference of the three others below.

    Released code: none known to be wrong.

    Source: Chen et al., "Understanding Matrix Function Normalizations in Covariance Pooling through the Lens of
    Riemannian Geometry", ICLR 2025.
    """

    def normalize(self, x: Tensor) -> Tensor:
        return self.square_root(x.double()).to(x.dtype)


@register("scale_pow_emlr")
class ScalePowEMLR(PowEMLR):
    r"""Power-Euclidean regression with the factor 1/α = 2 of the metric: :math:`\operatorname{tri}(2Q)`."""

    def normalize(self, x: Tensor) -> Tensor:
        return 2 * super().normalize(x)


@register("pow_tmlr")
class PowTMLR(PowEMLR):
    r"""Tangent-space regression at the identity in the power geometry: :math:`\operatorname{tri}(2(Q - I))`."""

    def normalize(self, x: Tensor) -> Tensor:
        q = super().normalize(x)
        return 2 * (q - torch.eye(q.shape[1], dtype=q.dtype, device=q.device))


@register("cho_tmlr")
class CholeskyTMLR(SecondOrderHead):
    r"""Tangent-space regression in the log-Cholesky geometry, in float64.

    .. math:: \operatorname{tri}(K + K^\top),\qquad K = \lfloor L\rfloor + \log\operatorname{diag}L,\qquad
              LL^\top = \Sigma + \epsilon I

    Output size d(d+1)/2.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.
        eps: ε.

    When to use: comparisons of geometries; needs no eigenvalues, but depends on the order of the channels.

    Released code: its covariance can be indefinite (see :func:`~gcpzoo.functional.log_cholesky`), and then it stops.

    Source: Chen et al., ICLR 2025.
    """

    def __init__(
        self, in_features: int, dim: int | Sequence[int] | None = None, eps: float = 1e-6, **kwargs: Any
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        if not eps > 0:
            raise ZooError(f"eps must be positive, got {eps}")
        self.eps = eps

    def normalize(self, x: Tensor) -> Tensor:
        return log_cholesky(x, self.eps)

"""The accurate root with its seven published backward rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from gcpzoo.errors import ZooError
from gcpzoo.heads.base import RootHead, register


class SvdRoot(RootHead):
    r"""The accurate square root of the covariance in float64, with a published approximation of its gradient.

    .. math:: \operatorname{tri}(U\Lambda^{1/2}U^\top),\quad \Lambda \ge 2.2\cdot10^{-16},\qquad
              \text{backward: } L_{ij} = K_{ij}\bigl(\sqrt{\lambda_i} - \sqrt{\lambda_j}\bigr),\
              K_{ij}\approx 1/(\lambda_i-\lambda_j)

    Output size d(d+1)/2.

    Args:
        in_features, dim, root, iterations, kwargs: see :class:`~gcpzoo.heads.base.RootHead`.
        backward: ``"published"``, the rule of the head's name; or ``"exact"``: root and gradient of ``mpn_cov``. Both
            are computed on the smaller side.

    When to use: to reproduce Song et al., alone or as the second half of their hybrid protocol (train with ``isqrt``,
    switch at the last drop of the learning rate). For new work ``mpn_cov`` is the same root, faster and exact.

    Released code: the centering matrix is rounded to float32 (kept here, see
    :func:`~gcpzoo.functional.released_covariance`); the eigendecomposition moves to the CPU and back.

    Source: Song et al., "Why Approximate Matrix Square Root Outperforms Accurate SVD in Global Covariance Pooling?",
    ICCV 2021.
    """

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        root: str | None = None,
        iterations: int = 3,
        backward: str = "published",
        **kwargs: Any,
    ) -> None:
        if backward not in ("published", "exact"):
            raise ZooError(f"backward is 'published' or 'exact', got {backward!r}")
        if root is None and backward == "exact":
            root = "exact"
        super().__init__(in_features, dim, root, iterations, **kwargs)


@register("svd_original")
class SvdOriginal(SvdRoot):
    """SVD with its plain gradient, :math:`K_{ij} = 1/(λ_i-λ_j)`, unbounded for close eigenvalues."""

    default_root: ClassVar[str] = "svd_original"


@register("svd_pade")
class SvdPade(SvdRoot):
    """SVD-Padé: K by the [50/50] Padé approximant of the geometric series, which is the quotient itself (to 8e-11)."""

    default_root: ClassVar[str] = "svd_pade"


@register("svd_taylor")
class SvdTaylor(SvdRoot):
    """SVD-Taylor: K by the geometric series up to degree 100, bounded; the gradient is about 2 % off."""

    default_root: ClassVar[str] = "svd_taylor"


@register("svd_trunc")
class SvdTrunc(SvdRoot):
    """SVD-Trunc: K clipped to ±1e10."""

    default_root: ClassVar[str] = "svd_trunc"


@register("svd_topn")
class SvdTopN(SvdRoot):
    """SVD-TopN: the 50 smallest eigenvalues set to 2.2e-16, also in the forward pass. The paper could not train it."""

    default_root: ClassVar[str] = "svd_topn"


@register("svd_newton")
class SvdNewton(SvdRoot):
    """SVD-Newton: the gradient of ``iterations`` Newton–Schulz steps (3 in the released code) behind that root."""

    default_root: ClassVar[str] = "svd_newton"


@register("svd_power_iteration")
class SvdPowerIteration(SvdRoot):
    """K by the 19 terms of the geometric series that differentiated power iterations give (Wang et al., NeurIPS 2019).

    The released layer of Song et al. multiplies by I − UUᵀ over all eigenvectors, which is zero: no gradient.
    """

    default_root: ClassVar[str] = "svd_power_iteration"

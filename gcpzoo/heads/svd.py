"""The accurate root with its seven published backward rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from gcpzoo.functional.checks import check_choice
from gcpzoo.heads.base import RootHead
from gcpzoo.heads.registry import register


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
    switch at the last drop of the learning rate). For new work ``mpn_cov`` is the same root, faster and exact. ONNX has
    no eigendecomposition: export with ``head.switch_root("minimax")``, which is 0.3 % off on features of a network.

    Released code: rounds the centering matrix to float32 (kept here, see
    :func:`~gcpzoo.functional.released_covariance`) and moves the eigendecomposition to the CPU and back.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> x = torch.tensor([[[[3.0, -3.0, 3.0, -3.0]], [[2.0, 2.0, -2.0, -2.0]]]])
    >>> create_head("svd_pade", in_features=2)(x)
    tensor([[3., 0., 2.]])

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
        check_choice("backward", backward, ("published", "exact"))
        if root is None and backward == "exact":
            root = "exact"
        super().__init__(in_features, dim, root, iterations, **kwargs)


@register("svd_original")
class SvdOriginal(SvdRoot):
    r"""SVD: the accurate root with its plain gradient, unbounded for close eigenvalues.

    .. math:: K_{ij} = 1/(\lambda_i-\lambda_j)

    >>> from gcpzoo.heads import create_head
    >>> create_head("svd_original", in_features=8).root
    'svd_original'

    Source: Song et al., "Why Approximate Matrix Square Root Outperforms Accurate SVD in Global Covariance Pooling?",
    ICCV 2021.
    """

    default_root: ClassVar[str] = "svd_original"


@register("svd_pade")
class SvdPade(SvdRoot):
    """SVD-Padé: the accurate root, its gradient by the Padé approximant of a geometric series.

    K is the [50/50] Padé approximant of the series in the ratio of eigenvalues, which equals the quotient to 8e-11.

    >>> from gcpzoo.heads import create_head
    >>> create_head("svd_pade", in_features=8).root
    'svd_pade'

    Source: Song et al., "Why Approximate Matrix Square Root Outperforms Accurate SVD in Global Covariance Pooling?",
    ICCV 2021.
    """

    default_root: ClassVar[str] = "svd_pade"


@register("svd_taylor")
class SvdTaylor(SvdRoot):
    """SVD-Taylor: the accurate root, its gradient by a geometric series up to degree 100.

    The series in the ratio of eigenvalues keeps K bounded; the gradient is about 2 % off.

    >>> from gcpzoo.heads import create_head
    >>> create_head("svd_taylor", in_features=8).root
    'svd_taylor'

    Source: Song et al., "Why Approximate Matrix Square Root Outperforms Accurate SVD in Global Covariance Pooling?",
    ICCV 2021.
    """

    default_root: ClassVar[str] = "svd_taylor"


@register("svd_trunc")
class SvdTrunc(SvdRoot):
    r"""SVD-Trunc: the accurate root, the quotients of its gradient clipped to ±1e10.

    .. math:: K_{ij} = \operatorname{clip}\bigl(1/(\lambda_i-\lambda_j),\,-10^{10},\,10^{10}\bigr)

    >>> from gcpzoo.heads import create_head
    >>> create_head("svd_trunc", in_features=8).root
    'svd_trunc'

    Source: Song et al., "Why Approximate Matrix Square Root Outperforms Accurate SVD in Global Covariance Pooling?",
    ICCV 2021.
    """

    default_root: ClassVar[str] = "svd_trunc"


@register("svd_topn")
class SvdTopN(SvdRoot):
    """SVD-TopN: the accurate root without the 50 smallest eigenvalues, which become 2.2e-16.

    They are replaced in the forward pass too. The paper could not train this variant.

    >>> from gcpzoo.heads import create_head
    >>> create_head("svd_topn", in_features=8).root
    'svd_topn'

    Source: Song et al., "Why Approximate Matrix Square Root Outperforms Accurate SVD in Global Covariance Pooling?",
    ICCV 2021.
    """

    default_root: ClassVar[str] = "svd_topn"


@register("svd_newton")
class SvdNewton(SvdRoot):
    """SVD-Newton: the accurate root with the gradient of a few Newton–Schulz steps.

    The gradient takes ``iterations`` steps, by default 3 as in the authors' released layer. Their training script
    takes 10 (``iterations=10``). In the hybrid protocol, which switches an ``isqrt`` head over, they stay those of
    ``isqrt``, 5.

    >>> from gcpzoo.heads import create_head
    >>> create_head("svd_newton", in_features=8).root
    'svd_newton'

    Source: Song et al., "Why Approximate Matrix Square Root Outperforms Accurate SVD in Global Covariance Pooling?",
    ICCV 2021.
    """

    default_root: ClassVar[str] = "svd_newton"


@register("svd_power_iteration")
class SvdPowerIteration(SvdRoot):
    """SVD-PI: the accurate root with the gradient of 19 power iterations.

    K is the sum of the 19 terms of the geometric series that differentiated power iterations with deflation give. The
    released layer of Song et al. multiplies by I − UUᵀ over all eigenvectors, which is zero: no gradient.

    >>> from gcpzoo.heads import create_head
    >>> create_head("svd_power_iteration", in_features=8).root
    'svd_power_iteration'

    Source: Wang et al., "Backpropagation-Friendly Eigendecomposition", NeurIPS 2019; compared by Song et al.,
    ICCV 2021.
    """

    default_root: ClassVar[str] = "svd_power_iteration"

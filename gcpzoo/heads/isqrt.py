"""iSQRT-COV."""

from __future__ import annotations

from gcpzoo.heads.base import RootHead
from gcpzoo.heads.registry import register


@register("isqrt")
class ISqrtCov(RootHead):
    r"""iSQRT-COV: the covariance, then a few Newton–Schulz steps towards its square root.

    .. math:: \operatorname{tri}\bigl(\sqrt{t}\;\mathrm{NS}_N(\Sigma/t)\bigr),\qquad t = \operatorname{tr}\Sigma

    Five steps (the papers' setting for ResNets) are far from converged on rank-deficient covariances: the number of
    steps is part of the model. Output size d(d+1)/2.

    Args:
        in_features, dim, root, iterations, kwargs: see :class:`~gcpzoo.heads.base.RootHead`.

    When to use: the default choice; matrix products only, so that it compiles and exports. ``root="minimax"`` is near
    the exact root with as many products.

    Released code: gives NaN for an all-zero feature map; here zeros, with a finite gradient. Files of fast-MPN-COV
    from before 2018-12-26 order the triangle by columns.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> x = torch.tensor([[[[3.0, -3.0, 3.0, -3.0]], [[2.0, 2.0, -2.0, -2.0]]]])
    >>> create_head("isqrt", in_features=2, iterations=10)(x)
    tensor([[3.0000, 0.0000, 2.0000]])

    Source: Li et al., "Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square Root
    Normalization", CVPR 2018, section 3.
    """

"""MPN-COV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.functional import ROOTS, matrix_log, matrix_power
from gcpzoo.functional.checks import check_choice, check_positive
from gcpzoo.functional.spectral import NORMS
from gcpzoo.heads.base import RootHead
from gcpzoo.heads.registry import register


@register("mpn_cov")
class MPNCov(RootHead):
    r"""MPN-COV: the matrix power of the covariance, exact in value and gradient, by eigendecomposition.

    .. math:: \operatorname{tri}(U\,\Lambda^\alpha\,U^\top),\qquad \Sigma = U\Lambda U^\top

    The eigendecomposition runs in float64. Output size d(d+1)/2.

    Args:
        in_features, dim, root, iterations, steps, kwargs: see :class:`~gcpzoo.heads.base.RootHead`; another root than
            ``"exact"`` takes the place of the power ½.
        alpha: the power, > 0; ½ is the square root.
        norm: ``None``, ``"l2"`` (divide by :math:`\lambda_1^\alpha`) or ``"frobenius"`` (by the norm of
            :math:`\Lambda^\alpha`).
        logarithm: take :math:`\log(\Sigma + 10^{-3}I)` instead of a power.

    When to use: where accuracy of the root counts, for evaluation, and for small d; the gradient is exact for repeated
    and zero eigenvalues too. ``eigh`` is slow on a GPU, and ONNX has none: export with
    ``head.switch_root("minimax")``, which is 0.3 % off on features of a network.

    Released code: the quotient 1/(λi−λj) in the gradient overflows for close eigenvalues; the Loewner matrix used here
    stays finite.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> x = torch.tensor([[[[3.0, -3.0, 3.0, -3.0]], [[2.0, 2.0, -2.0, -2.0]]]])
    >>> create_head("mpn_cov", in_features=2)(x).round(decimals=4)
    tensor([[3., 0., 2.]])

    Source: Li et al., "Is Second-order Information Helpful for Large-scale Visual Recognition?", ICCV 2017, section 3.
    """

    default_root: ClassVar[str] = "exact"

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        alpha: float = 0.5,
        norm: str | None = None,
        logarithm: bool = False,
        **kwargs: Any,
    ) -> None:
        check_positive("alpha", alpha)
        check_choice("norm", norm, NORMS)
        if logarithm and (alpha != 0.5 or norm is not None):
            raise ZooError("logarithm=True stands alone: leave alpha and norm at their defaults")
        self.square = alpha == 0.5 and norm is None and not logarithm
        super().__init__(in_features, dim, **kwargs)
        self.alpha, self.norm, self.logarithm = alpha, norm, logarithm

    def switch_root(self, root: str) -> None:
        if root in ROOTS and root != "exact" and not self.square:
            raise ZooError(f"root must be 'exact' unless alpha is 0.5 without norm or logarithm, got {root!r}")
        super().switch_root(root)

    def normalize(self, x: Tensor) -> Tensor:
        if self.square:
            return self.square_root(x)
        return matrix_log(x) if self.logarithm else matrix_power(x, self.alpha, self.norm)

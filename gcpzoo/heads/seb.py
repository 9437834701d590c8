"""Scaling eigen branch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.functional import covariance, spectral_function, surrogate_sqrt
from gcpzoo.functional.checks import check_choice, check_name
from gcpzoo.functional.surrogates import RULES
from gcpzoo.heads.base import SecondOrderHead
from gcpzoo.heads.registry import register


def branch_norm(w: Tensor) -> Tensor:
    """Frobenius norm of √Σ·exp(−Σ) from the eigenvalues of Σ; its gradient is 0 where all are 0.

    Args:
        w: ``(B, n)``, non-negative.

    Returns:
        ``(B, 1)``.

    >>> import torch
    >>> branch_norm(torch.tensor([[1.0, 0.0]]))  # exp(-1)
    tensor([[0.3679]])
    """
    square = (w * (-2 * w).exp()).sum(1, keepdim=True)
    return torch.where(square > 0, square, 1).sqrt() * (square > 0)


@register("seb")
class ScalingEigenBranch(SecondOrderHead):
    r"""Scaling eigen branch (SEB): the root, scaled by a norm that gives small eigenvalues more weight.

    .. math:: \operatorname{tri}\bigl(Q\,(1 + \lVert QS\rVert_F)\bigr),\qquad Q = \Sigma^{1/2},\quad S = \exp(-\Sigma),
              \qquad \lVert QS\rVert_F = \sqrt{\textstyle\sum_i\lambda_i e^{-2\lambda_i}}

    Output size d(d+1)/2.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.
        backward: rule for the gradient of the root, see :func:`~gcpzoo.functional.surrogate_sqrt`; the paper's is
            ``"original"``, ``"exact"`` is the Loewner gradient. All are computed on the smaller side.
        parity: ``"released"`` computes the norm as the released code does, see below; ``None`` by the formula.

    When to use: fine-grained recognition, for which the paper proposes it.

    Released code: computes the norm by dividing QS element-wise by the normalized QS. That is NaN where QS has a zero,
    as it has for a channel without any response, and the formula above elsewhere.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> create_head("seb", in_features=1)(torch.tensor([[[[1.0, -1.0]]]]))  # 1 + exp(-1)
    tensor([[1.3679]])

    Source: Song et al., "On the Eigenvalues of Global Covariance Pooling for Fine-grained Visual Recognition",
    TPAMI 2022.
    """

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        backward: str = "original",
        parity: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        check_name("backward rule", backward, ["exact", *RULES])
        check_choice("parity", parity, (None, "released"))
        if parity and backward == "exact":
            raise ZooError("parity='released' goes with a published backward rule, not with backward='exact'")
        self.backward, self.parity = backward, parity

    def normalize(self, x: Tensor) -> Tensor:
        if self.backward == "exact":
            return spectral_function(x, lambda w, spectrum: w.sqrt() * (1 + branch_norm(spectrum)))
        root, w = surrogate_sqrt(x, self.backward)
        scale = 1 + branch_norm(w)[:, :, None]
        if self.parity == "released":
            branch = root @ torch.linalg.matrix_exp(-covariance(x.double()))
            scale = torch.where(branch == 0, torch.nan, scale)
        return (root * scale).to(x.dtype)

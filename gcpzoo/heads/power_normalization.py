"""Power normalizations of the second moment: SigmE, MaxExp, Gamma, AsinhE, and the spectral MaxExp(F)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from gcpzoo.functional import power_normalization as power
from gcpzoo.functional.checks import check_count, check_positive
from gcpzoo.heads.base import SecondOrderHead
from gcpzoo.heads.registry import register
from gcpzoo.limits import ITERATIONS


@register("sigme")
class SigmE(SecondOrderHead):
    r"""SigmE: a sigmoid of each entry of the second moment divided by its trace.

    .. math:: \operatorname{vec}\Bigl(\frac2{1 + e^{-\eta p}} - 1\Bigr) = \operatorname{vec}\tanh(\eta p/2),\qquad
              p = XX^\top/\operatorname{tr}XX^\top

    Output size d²: all entries of the matrix, as in the released code.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.
        eta: :math:`\eta`, the slope.

    When to use: few-shot recognition, for which SoSN uses it.

    Released code: divides 0 by 0 for an all-zero map; here zeros.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> create_head("sigme", in_features=2, eta=2)(torch.ones(1, 2, 3, 3))
    tensor([[0.4621, 0.4621, 0.4621, 0.4621]])

    Source: Zhang and Koniusz, "Power Normalizing Second-order Similarity Network for Few-shot Learning", WACV 2019.
    """

    centered: ClassVar[bool] = False

    def __init__(
        self, in_features: int, dim: int | Sequence[int] | None = None, eta: float = 100.0, **kwargs: Any
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        check_positive("eta", eta)
        self.eta = eta

    def normalize(self, x: Tensor) -> Tensor:
        return power.sigme(power.shares(x, floor=0), self.eta)

    def vectorize(self, a: Tensor) -> Tensor:
        return a.flatten(1)

    def vector_size(self) -> int:
        return self.group_dim**2


@register("maxexp")
class MaxExp(SecondOrderHead):
    r"""MaxExp: one minus a power of one minus each entry of the second moment divided by its trace.

    .. math:: \operatorname{tri}\bigl(1 - (1 - p)^\eta\bigr),\qquad
              p = S/(\operatorname{tr}S + 10^{-6}),\quad S = XX^\top/M

    Output size d(d+1)/2.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.
        eta: :math:`\eta`.

    When to use: features after a ReLU, in few-shot and fine-grained recognition. Negative entries of p count as
    :math:`-(1 - (1 - |p|)^\eta)`.

    Released code: none; from the formula.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> create_head("maxexp", in_features=2, eta=2)(torch.ones(1, 2, 3, 3))
    tensor([[0.7500, 0.7500, 0.7500]])

    Source: Koniusz and Zhang, "Power Normalizations in Fine-grained Image, Few-shot Image and Graph Classification",
    TPAMI 2022, arXiv 2012.13975.
    """

    centered: ClassVar[bool] = False

    def __init__(
        self, in_features: int, dim: int | Sequence[int] | None = None, eta: float = 20.0, **kwargs: Any
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        check_positive("eta", eta)
        self.eta = eta

    def normalize(self, x: Tensor) -> Tensor:
        return power.maxexp(power.shares(x), self.eta)


@register("gamma")
class Gamma(SecondOrderHead):
    r"""Gamma: a power of each entry of the second moment divided by its trace.

    .. math:: \operatorname{tri}\bigl((p + 10^{-6})^\gamma\bigr),\qquad
              p = S/(\operatorname{tr}S + 10^{-6}),\quad S = XX^\top/M

    Output size d(d+1)/2. An all-zero map gives zeros.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.
        gamma: :math:`\gamma`, at most 1 to level the entries.

    When to use: the plainest of the power normalizations. Negative entries of p keep their sign.

    Released code: none; from the formula.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> create_head("gamma", in_features=2)(torch.ones(1, 2, 3, 3))
    tensor([[0.7071, 0.7071, 0.7071]])

    Source: Koniusz and Zhang, "Power Normalizations in Fine-grained Image, Few-shot Image and Graph Classification",
    TPAMI 2022, arXiv 2012.13975.
    """

    centered: ClassVar[bool] = False

    def __init__(
        self, in_features: int, dim: int | Sequence[int] | None = None, gamma: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        check_positive("gamma", gamma)
        self.gamma = gamma

    def normalize(self, x: Tensor) -> Tensor:
        p = power.shares(x)
        silent = p.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] == 0
        return torch.where(silent, 0, power.gamma(p, self.gamma))


@register("asinhe")
class AsinhE(SecondOrderHead):
    r"""AsinhE: the inverse hyperbolic sine of each entry of the second moment divided by its trace.

    .. math:: \operatorname{tri}\operatorname{asinh}(\gamma'p),\qquad
              p = S/(\operatorname{tr}S + 10^{-6}),\quad S = XX^\top/M

    Output size d(d+1)/2.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.
        scale: :math:`\gamma'`.

    When to use: features of both signs, as a smooth form of Gamma.

    Released code: none; from the formula.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> create_head("asinhe", in_features=2, scale=2)(torch.ones(1, 2, 3, 3))
    tensor([[0.8814, 0.8814, 0.8814]])

    Source: Koniusz and Zhang, "Power Normalizations in Fine-grained Image, Few-shot Image and Graph Classification",
    TPAMI 2022, arXiv 2012.13975.
    """

    centered: ClassVar[bool] = False

    def __init__(
        self, in_features: int, dim: int | Sequence[int] | None = None, scale: float = 500.0, **kwargs: Any
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        check_positive("scale", scale)
        self.scale = scale

    def normalize(self, x: Tensor) -> Tensor:
        return power.asinhe(power.shares(x), self.scale)


@register("maxexp_f")
class MaxExpF(SecondOrderHead):
    r"""MaxExp(F), spectral MaxExp: one minus a power of one minus each eigenvalue of the second moment.

    .. math:: \operatorname{tri}\bigl(I - (I - p)^\eta\bigr),\qquad
              p = S/(\operatorname{tr}S + 10^{-6}),\quad S = XX^\top/M

    Repeated squaring, no eigendecomposition, on the smaller side of the features. Output size d(d+1)/2.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.
        eta: :math:`\eta`, a whole number, at most 1000.

    When to use: matrix products only, so that it compiles and exports; features of any sign.

    Released code: none; from the formula.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> create_head("maxexp_f", in_features=2, eta=2)(torch.tensor([[[[1.0, 1.0]], [[1.0, -1.0]]]])).round(decimals=3)
    tensor([[0.7500, 0.0000, 0.7500]])

    Source: Koniusz and Zhang, "Power Normalizations in Fine-grained Image, Few-shot Image and Graph Classification",
    TPAMI 2022, arXiv 2012.13975.
    """

    centered: ClassVar[bool] = False

    def __init__(self, in_features: int, dim: int | Sequence[int] | None = None, eta: int = 20, **kwargs: Any) -> None:
        super().__init__(in_features, dim, **kwargs)
        check_count("eta", eta, most=ITERATIONS)
        self.eta = eta

    def normalize(self, x: Tensor) -> Tensor:
        return power.maxexp_f(x, self.eta)

"""Gamma-democratic aggregation."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.functional import gamma_democratic
from gcpzoo.functional.checks import check_count
from gcpzoo.heads.base import SecondOrderHead
from gcpzoo.heads.bcnn import signed_sqrt
from gcpzoo.heads.registry import register
from gcpzoo.limits import ITERATIONS


@register("gamma_democratic")
class GammaDemocraticPooling(SecondOrderHead):
    r"""Gamma-democratic pooling: outer products of the positions, each weighted to contribute about alike.

    .. math:: v = \operatorname{vec}\sum_i\alpha_i x_ix_i^\top,\qquad
              z = \operatorname{sign}(v)\sqrt{|v| + 10^{-8}},\qquad z/\lVert z\rVert_2

    with :math:`\alpha` from :func:`~gcpzoo.functional.gamma_democratic`. Output size d²: all entries of the matrix.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.
        gamma: 0 makes the contributions equal (democratic), 1 leaves the sum as it is.
        iterations: damped Sinkhorn steps, at most 1000.

    When to use: textures and fine-grained recognition, against bursts of one pattern that outweigh all others.

    Released code: the layer is not public; from the formula, with the driver's settings. Whether the authors' gradient
    goes through the iterations, as here, is unknown.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> create_head("gamma_democratic", in_features=2, gamma=0.0)(torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]]))
    tensor([[0.7071, 0.0000, 0.0000, 0.7071]])

    Source: Lin, Maji and Koniusz, "Second-order Democratic Aggregation", ECCV 2018, arXiv 1808.07503.
    """

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        gamma: float = 0.5,
        iterations: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        if not isinstance(gamma, Real) or isinstance(gamma, bool) or not 0 <= gamma <= 1:
            raise ZooError(f"gamma must be between 0 and 1, got {gamma!r}")
        check_count("iterations", iterations, most=ITERATIONS)
        self.gamma, self.iterations = gamma, iterations

    def normalize(self, x: Tensor) -> Tensor:
        return gamma_democratic(x, self.gamma, self.iterations)

    def normalize_weighted(self, x: Tensor, weights: Tensor) -> Tensor:
        return gamma_democratic(x, self.gamma, self.iterations, weights)  # its positions do not mix

    def vectorize(self, a: Tensor) -> Tensor:
        return signed_sqrt(a.flatten(1))

    def vector_size(self) -> int:
        return self.group_dim**2

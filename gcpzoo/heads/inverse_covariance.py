"""Inverse covariance, plain (INVCOV) and sparse (iSICE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gcpzoo.functional import inverse_covariance, sparse_inverse_covariance
from gcpzoo.functional.checks import check_count, check_not_negative, check_positive
from gcpzoo.heads.base import SecondOrderHead
from gcpzoo.heads.registry import register
from gcpzoo.limits import ITERATIONS


@register("invcov")
class InverseCovariance(SecondOrderHead):
    r"""INVCOV: the inverse of the covariance by Newton–Schulz, the control of iSICE.

    .. math:: \operatorname{tri}(R^2),\qquad R = Z_N(A/t)/\sqrt t,\quad A = \Sigma + J,\quad t = \operatorname{tr}A

    J is tiny, see :func:`~gcpzoo.functional.newton_schulz_inverse`. Output size d(d+1)/2.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.
        iterations: N, Newton–Schulz steps; 7 in the authors' configuration, far from converged.

    When to use: to tell what of iSICE is due to the inverse.

    Released code: draws J at random in each call, which matters 1e-7; here it is fixed. An all-zero map gives zeros.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> x = torch.tensor([[[[2.0, -2.0, 2.0, -2.0]], [[1.0, 1.0, -1.0, -1.0]]]])
    >>> create_head("invcov", in_features=2)(x)
    tensor([[0.2500, 0.0000, 1.0000]])

    Source: Rahman et al., "Learning Partial Correlation based Deep Visual Representation for Image Classification",
    CVPR 2023, arXiv 2304.11597.
    """

    def __init__(
        self, in_features: int, dim: int | Sequence[int] | None = None, iterations: int = 7, **kwargs: Any
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        check_count("iterations", iterations, most=ITERATIONS)
        self.iterations = iterations

    def normalize(self, x: Tensor) -> Tensor:
        return inverse_covariance(x, self.iterations)


@register("isice")
class SparseInverseCovariance(SecondOrderHead):
    r"""iSICE: a sparse estimate of the inverse covariance, by iterated steps of gradient and threshold.

    .. math:: \operatorname{tri}\bigl(P/\sqrt{\operatorname{tr}P}\bigr)

    with P from :func:`~gcpzoo.functional.sparse_inverse_covariance`: partial correlations of the channels. Output size
    d(d+1)/2.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.
        steps: n. The last has the length 0, so that n - 1 count; ``steps=1`` makes one of full length.
        sparsity: :math:`\rho`, the threshold.
        rate: :math:`\lambda`, the length of the first step (5 in one of the authors' scripts).
        iterations: Newton–Schulz steps of each inverse, 7 in the released code.

    When to use: fine-grained and scene recognition, for which the paper reports it above iSQRT-COV. "Sparse" is
    nominal: P is of the order of d and the thresholds are of the order of 0.01, so that with the default settings all
    steps together move the result by 1e-3, and up to 3 % of its entries become 0. A larger ``rate`` makes more.

    Released code: divides by zero for ``steps=1``, computes an inverse in the last step without using it, and draws a
    tiny jitter at random, which matters 1e-7; here it is fixed. An all-zero map gives NaN there and zeros here.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> x = torch.tensor([[[[1.0, -1.0, 1.0, -1.0]], [[1.0, 1.0, -1.0, -1.0]]]])
    >>> create_head("isice", in_features=2)(x).round(decimals=2)
    tensor([[0.9900, 0.0000, 0.9900]])

    Source: Rahman et al., "Learning Partial Correlation based Deep Visual Representation for Image Classification",
    CVPR 2023, arXiv 2304.11597, algorithm 2.
    """

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        steps: int = 5,
        sparsity: float = 0.01,
        rate: float = 1.0,
        iterations: int = 7,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        check_count("steps", steps, most=ITERATIONS)
        check_not_negative("sparsity", sparsity)
        check_positive("rate", rate)
        check_count("iterations", iterations, most=ITERATIONS)
        self.iterations = iterations
        self.steps, self.sparsity, self.rate = steps, sparsity, rate

    def normalize(self, x: Tensor) -> Tensor:
        return sparse_inverse_covariance(x, self.steps, self.sparsity, self.rate, self.iterations)

"""Matrix square root by coupled Newton–Schulz iteration, on the smaller side of the data matrix."""

from __future__ import annotations

from torch import Tensor

from gcpzoo.functional.checks import check_count
from gcpzoo.functional.polynomial_root import NEWTON_SCHULZ, polynomial_root
from gcpzoo.functional.precision import triton_precision


def newton_schulz_sqrt(x: Tensor, iterations: int = 5, center: bool = True) -> Tensor:
    r"""Approximate square root of the covariance of ``x`` by ``iterations`` Newton–Schulz steps.

    .. math:: A = \Sigma/\operatorname{tr}\Sigma,\quad T_k = \tfrac12(3I - Z_kY_k),\quad
              Y_{k+1} = Y_kT_k,\quad Z_{k+1} = T_kZ_k,\quad Y_0 = A,\ Z_0 = I;\qquad \sqrt{\operatorname{tr}\Sigma}\,Y_N

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        iterations: number of steps ``N >= 1``.
        center: ``False`` takes the root of the second moment instead of the covariance.

    Returns:
        ``(B, d, d)``; an all-zero covariance gives zeros with a finite gradient.

    Raises:
        ValueError: ``iterations`` is below 1.

    The result is a polynomial of the covariance. It is iterated on the smaller side of the data matrix, or, where that
    is faster (on a CPU from 64 rows), evaluated on its eigenvalues; the two agree to rounding.
    The backward pass keeps the features and one or two matrices of the smaller side. With
    ``GCPZOO_TRITON=bf16x3`` in the environment a CUDA device runs the steps for at most 128 rows in one Triton kernel;
    that kernel has not been run on a GPU yet.

    >>> import torch
    >>> x = torch.tensor([[[3.0, -3.0, 3.0, -3.0], [1.0, 1.0, -1.0, -1.0]]])
    >>> newton_schulz_sqrt(x, iterations=5)[0, 0, 0], newton_schulz_sqrt(x, iterations=1)[0, 0, 0]
    (tensor(3.), tensor(2.9884))

    Source: Li et al., CVPR 2018, eqs. (2), (5)-(7).
    """
    check_count("iterations", iterations)
    triton_precision()  # a mistake in the environment is an error on every device
    return polynomial_root(x, (NEWTON_SCHULZ,) * iterations, False, center)

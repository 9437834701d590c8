"""Matrix square root by a chain of minimax polynomials: products only, and few of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.functional.covariance import as_matrix
from gcpzoo.functional.polynomial_root import Steps, gradient, polynomial_root
from gcpzoo.functional.precision import hand_written, without_autocast
from gcpzoo.functional.small_side import features, few_positions, gram
from gcpzoo.functional.tracing import is_exported

# Written by scripts/minimax_coefficients.py.
COEFFICIENTS: dict[int, Steps] = {
    3: (  # square roots from 0.05: relative error at most 7.5e-03
        (6.685520077, -17.811269768, 12.619541304),
        (2.521537345, -1.826794403, 0.420646793),
        (1.932118869, -1.312099814, 0.381262147),
    ),
    4: (  # square roots from 0.014: relative error at most 4.0e-03
        (7.857482235, -22.323858283, 16.130383110),
        (3.421645277, -2.514027439, 0.496266948),
        (2.418556696, -1.740969744, 0.411401925),
        (1.912316250, -1.290865795, 0.379109479),
    ),
    5: (  # square roots from 0.005: relative error at most 5.4e-04
        (8.216538110, -23.712000812, 17.212303718),
        (3.879551335, -2.837366065, 0.532321424),
        (3.158082458, -2.321488356, 0.474890007),
        (2.185499592, -1.537278017, 0.389781251),
        (1.884580140, -1.260603900, 0.376061962),
    ),
    6: (  # square roots from 0.0015: relative error at most 1.3e-04
        (8.364856040, -24.285998856, 17.659880257),
        (4.106857483, -2.993708152, 0.549792636),
        (3.802328419, -2.783677611, 0.526325888),
        (2.990991792, -2.196308334, 0.461051179),
        (2.082083313, -1.441323721, 0.379797465),
        (1.878627918, -1.254025139, 0.375402741),
    ),
}
HALF = (torch.float16, torch.bfloat16)


def check_steps(steps: Any) -> None:
    """Require a number of steps for which there are coefficients.

    >>> check_steps(4)
    >>> check_steps(7)
    Traceback (most recent call last):
    ...
    gcpzoo.errors.ZooError: steps must be 3, 4, 5 or 6, got 7
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps not in COEFFICIENTS:
        *first, last = COEFFICIENTS
        raise ZooError(f"steps must be {', '.join(map(str, first))} or {last}, got {steps!r}")


def _positive(a: Tensor) -> Tensor:
    """Replace zeros by 1."""
    return torch.where(a > 0, a, 1)


def polar_root(x: Tensor, steps: Steps, center: bool = True) -> Tensor:
    r"""The root by way of the features' polar factor, with all products in the dtype of ``x``.

    For the data matrix :math:`Y = \sqrt M\,USV^\top` the chain takes :math:`Q_0 = Y/\lVert Y\rVert` to
    :math:`UV^\top` by :math:`Q_{k+1} = T_kQ_k`, T of :math:`W_k = Q_kQ_k^\top`, and :math:`USU^\top =
    QY^\top/\sqrt M`. Rounding then disturbs the square roots of the eigenvalues, where in products of the covariance it
    disturbs the eigenvalues, of which bfloat16 loses most, and lets small ones become negative and run away. T is
    summed in float32. 3N + 1 products, that of the covariance among them.

    Args:
        x: features ``(B, d, M)``.
        steps: the coefficients.
        center: ``False`` takes the second moment instead of the covariance.

    Returns:
        ``(B, d, d)`` in the dtype of ``x``.

    >>> import torch
    >>> x = torch.tensor([[[3.0, -3.0, 3.0, -3.0], [2.0, 2.0, -2.0, -2.0]]], dtype=torch.bfloat16)
    >>> polar_root(x, COEFFICIENTS[4]).float().round(decimals=1)
    tensor([[[3., 0.],
             [0., 2.]]])
    """
    y = features(x.float(), center)
    rows = y.mT if few_positions(y) else y
    n = rows.shape[1]
    # The covariance of trace n keeps its entries and the features' inside float16's range.
    length = _positive(torch.linalg.vector_norm(rows, dim=(1, 2), keepdim=True)) / n**0.5
    z = (rows / length).to(x.dtype)
    w = (z @ z.mT).float()
    norm = _positive(torch.linalg.vector_norm(w, dim=(1, 2), keepdim=True))
    w, q, scale = w / norm, z, norm.rsqrt()
    eye = torch.eye(n, device=x.device)
    for k, (c0, c1, c2) in enumerate(steps):
        if k > 0:
            w, scale = (q @ q.mT).float(), torch.ones_like(norm)
        short = w.to(x.dtype)
        t = c0 * eye + c1 * w + c2 * (short @ short).float()
        q = (t * scale).to(x.dtype) @ q
    root = (q.mT @ z if few_positions(y) else q @ z.mT).float()
    out: Tensor = (root + root.mT) * (length / (2 * x.shape[2] ** 0.5))
    return out.to(x.dtype)


class _PolarRoot(torch.autograd.Function):
    """``x, steps, center ->`` :func:`polar_root`, with the gradient in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: Steps, center: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.steps, ctx.center = steps, center
        return polar_root(x, steps, center)

    @staticmethod
    @hand_written
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        y = x.float()
        a, _ = gram(features(y, ctx.center))
        return gradient(y, a, ctx.steps, True, ctx.center, grad.float()).to(x.dtype), None, None


def minimax_sqrt(x: Tensor, steps: int = 4, center: bool = True) -> Tensor:
    r"""Approximate square root of the covariance of ``x`` by ``steps`` minimax polynomials, in products only.

    .. math:: W_0 = A = \Sigma/\lVert\Sigma\rVert_F,\quad T_k = a_kI + b_kW_k + c_kW_k^2,\quad
              W_{k+1} = W_kT_k^2;\qquad \sqrt{\lVert\Sigma\rVert_F}\;A\prod T_k

    Each T is the minimax approximation on the interval that the ones before leave. Roots from l to 1, times
    :math:`\sqrt{\lVert\Sigma\rVert_F}`, come out with at most a relative error; smaller ones between 0 and their value:

    - 3 steps, 9 products: l = 0.05, error 7.5e-3
    - 4 steps, 13 products: l = 0.014, error 4.0e-3
    - 5 steps, 17 products: l = 0.005, error 5.4e-4
    - 6 steps, 21 products: l = 0.0015, error 1.3e-4

    Five Newton–Schulz steps are 12 products; ``benchmarks/README.md`` compares the errors on features of a network.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``. float16 and bfloat16 are taken by :func:`polar_root`, with the
            products in that dtype and the gradient in float32.
        steps: 3 to 6.
        center: ``False`` takes the root of the second moment instead of the covariance.

    Returns:
        ``(B, d, d)`` in the dtype of ``x``; an all-zero covariance gives zeros with a finite gradient. The gradient is
        the polynomial's own.

    Raises:
        ZooError: ``steps`` is not one of 3 to 6.

    It is meant for GPUs, ``torch.compile``, export and ONNX, where no fast eigendecomposition exists. On a CPU
    :func:`matrix_power` gives the exact root at the same cost.

    >>> import torch
    >>> x = torch.tensor([[[3.0, -3.0, 3.0, -3.0], [1.0, 1.0, -1.0, -1.0]]])
    >>> minimax_sqrt(x, steps=6).round(decimals=3)
    tensor([[[3., 0.],
             [0., 1.]]])

    Source: the polynomials of Amsel, Persson, Musco and Gower, "The Polar Express", arXiv 2505.16932, carried over to
    the square root; ``scripts/minimax_coefficients.py`` computes them.
    """
    check_steps(steps)
    x = as_matrix(x)
    chain = COEFFICIENTS[steps]
    with without_autocast(x):
        if x.dtype not in HALF:
            return polynomial_root(x, chain, True, center)
        if is_exported():
            return polar_root(x, chain, center)
        out: Tensor = _PolarRoot.apply(x, chain, center)
        return out

"""Matrix square root by a chain of minimax polynomials: products only, and few of them."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.functional.covariance import as_matrix
from gcpzoo.functional.newton_schulz import eigen_is_faster
from gcpzoo.functional.precision import at_least_float32, hand_written, without_autocast
from gcpzoo.functional.small_side import features, few_positions, side
from gcpzoo.functional.spectral import spectral_function
from gcpzoo.functional.tracing import is_exported

Steps = tuple[tuple[float, float, float], ...]

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


def _norm(a: Tensor, dims: tuple[int, ...] = (1, 2)) -> Tensor:
    """Root of the sum of squares, with these dimensions kept; 1 where all are 0, so that zero maps to zero."""
    square = a.square().sum(dims, keepdim=True)
    return torch.where(square > 0, square, 1).sqrt()


class _Chain(NamedTuple):
    """The first and the last Q, by what the rows were divided, √M‖Σ‖_F^½, and where kept (Q, W, T) of every step."""

    first: Tensor
    last: Tensor
    length: Tensor
    kept: list[tuple[Tensor, Tensor, Tensor]]


def _rows(y: Tensor) -> Tensor:
    """Features or their transpose, with fewer rows than columns."""
    return y.mT if few_positions(y) else y


def _chain(rows: Tensor, steps: Steps, dtype: torch.dtype, keep: bool = False) -> _Chain:
    """Take the rows to their polar factor, with products in ``dtype`` and sums in that of the rows."""
    n = rows.shape[1]
    length = _norm(rows) / n**0.5  # a covariance of trace n has its entries, and the rows', inside float16's range
    q = (rows / length).to(dtype)
    w = (q @ q.mT).to(rows.dtype)
    norm = _norm(w)
    w, first, length = w / norm, (q * norm.rsqrt()).to(dtype), length * norm.sqrt()
    eye = torch.eye(n, dtype=rows.dtype, device=rows.device)
    q = first
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    for k, (a, b, c) in enumerate(steps):
        w = (q @ q.mT).to(rows.dtype) if k else w
        short = w.to(dtype)
        t = torch.add(torch.add(a * eye, w, alpha=b), (short @ short).to(rows.dtype), alpha=c)
        if keep:
            kept.append((q, w, t))
        q = t.to(dtype) @ q
    return _Chain(first, q, length, kept)


def polar_root(x: Tensor, steps: Steps, center: bool = True) -> Tensor:
    r"""The root by way of the features' polar factor, with all products in the dtype of ``x``.

    For the data matrix :math:`Y = \sqrt M\,USV^\top` the chain takes Y, divided by
    :math:`\sqrt M\lVert\Sigma\rVert_F^{1/2}`, to :math:`UV^\top` by :math:`Q_{k+1} = T_kQ_k` with T a polynomial of
    :math:`W_k = Q_kQ_k^\top`, and :math:`USU^\top = QY^\top/\sqrt M`. With fewer positions than channels
    :math:`Y^\top` takes the place of Y.

    Rounding disturbs the square roots of the eigenvalues here. In products of the covariance, as in the usual coupled
    iteration, it disturbs the eigenvalues: bfloat16 loses the small ones or makes them negative, from where they run
    away, and in float32 the gradient fails on features of low rank.

    Args:
        x: features ``(B, d, M)``.
        steps: the coefficients.
        center: ``False`` takes the second moment instead of the covariance.

    Returns:
        ``(B, d, d)`` in the dtype of ``x``, differentiable by ordinary autograd.

    >>> import torch
    >>> x = torch.tensor([[[3.0, -3.0, 3.0, -3.0], [2.0, 2.0, -2.0, -2.0]]], dtype=torch.bfloat16)
    >>> polar_root(x, COEFFICIENTS[4]).float().round(decimals=1)
    tensor([[[3., 0.],
             [0., 2.]]])
    """
    y = features(at_least_float32(x), center)
    chain = _chain(_rows(y), steps, x.dtype)
    q, first = chain.last, chain.first
    root = (q.mT @ first if few_positions(y) else q @ first.mT).to(y.dtype)
    out: Tensor = (root + root.mT) * (chain.length / (2 * y.shape[2] ** 0.5))
    return out.to(x.dtype)


class PolarRoot(torch.autograd.Function):
    """``x, steps, center ->`` :func:`polar_root`, which saves ``x`` only; the gradient is computed in float32.

    The backward pass repeats the chain and goes back through it: with G the cotangent of TQ, that of W by way of T is
    V = bB + c(BW + WB), B = GQᵀ + QGᵀ, and that of Q is TG + VQ.

    >>> PolarRoot.apply(torch.tensor([[[2.0, -2.0]]]), COEFFICIENTS[6], True).round(decimals=3)
    tensor([[[2.]]])
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: Steps, center: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.steps, ctx.center = steps, center
        return polar_root(x, steps, center)

    @staticmethod
    @hand_written
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        y = features(at_least_float32(x), ctx.center)
        chain = _chain(_rows(y), ctx.steps, y.dtype, keep=True)
        first, (_, w0, _) = chain.first, chain.kept[0]
        s = (grad + grad.mT).to(y.dtype) / 2
        g, direct = (first @ s, chain.last @ s) if few_positions(y) else (s @ first, s @ chain.last)
        value = (g * chain.last).sum((1, 2), keepdim=True)
        for (_, b, c), (q, w, t) in zip(ctx.steps[::-1], chain.kept[::-1]):
            twice = g @ q.mT
            twice = twice + twice.mT
            v = twice @ w
            v = torch.add(twice * b, v + v.mT, alpha=c)
            g = torch.baddbmm(t @ g, v, q)
        g = g + direct
        # The rest belongs to the norm that the covariance was divided by.
        g = torch.addcmul(g, w0 @ first, value - (g * first).sum((1, 2), keepdim=True)) / y.shape[2] ** 0.5
        g = g.mT if few_positions(y) else g
        return (g - g.mean(2, keepdim=True) if ctx.center else g).to(x.dtype), None, None


def on_eigenvalues(w: Tensor, spectrum: Tensor, steps: Steps) -> Tensor:
    """The chain on eigenvalues, divided by the norm of all of them.

    Args:
        w: eigenvalues ``(B, n)``.
        spectrum: all of them, ``(B, n)``.
        steps: the coefficients.

    Returns:
        ``(B, n)``, about their roots.

    >>> w = torch.tensor([[1.0, 4.0]])
    >>> on_eigenvalues(w, w, COEFFICIENTS[6]).round(decimals=3)
    tensor([[1., 2.]])
    """
    largest = spectrum.detach().amax(1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1)
    norm = _norm(spectrum / largest, (1,)) * largest
    y = v = w / norm
    for a, b, c in steps:
        t = a + b * v + c * v * v
        y, v = y * t, v * t * t
    return y * norm.sqrt()


def minimax_sqrt(x: Tensor, steps: int = 4, center: bool = True) -> Tensor:
    r"""Approximate square root of the covariance of ``x`` by ``steps`` minimax polynomials, in products only.

    .. math:: A = W_0 = \Sigma/\lVert\Sigma\rVert_F,\quad T_k = a_kI + b_kW_k + c_kW_k^2,\quad
              W_{k+1} = W_kT_k^2;\qquad \sqrt{\lVert\Sigma\rVert_F}\;A\prod T_k

    Each T is the minimax approximation on the interval that the ones before leave. Roots from l to 1, times
    :math:`\sqrt{\lVert\Sigma\rVert_F}`, come out with at most a relative error; smaller ones between 0 and their value:

    - 3 steps, 10 products: l = 0.05, error 7.5e-3
    - 4 steps, 13 products: l = 0.014, error 4.0e-3
    - 5 steps, 16 products: l = 0.005, error 5.4e-4
    - 6 steps, 19 products: l = 0.0015, error 1.3e-4

    The covariance is one of the products; Newton–Schulz takes 13 for 5 steps. Of the 3N + 1, 2N + 1 have the longer
    side of the data matrix in one dimension, where Newton–Schulz multiplies squares of the shorter side: 4 steps are
    as much work as its 5 for 256 channels on 14×14 positions, 2.1 times as much on 28×28, 1.5 times on 7×7.
    ``benchmarks/README.md`` has errors and counts on features of a network.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``. In float16 and bfloat16 the products are of that dtype, sums and
            the gradient of float32.
        steps: 3 to 6.
        center: ``False`` takes the root of the second moment instead of the covariance.

    Returns:
        ``(B, d, d)`` in the dtype of ``x``; an all-zero covariance gives zeros with a finite gradient. The gradient is
        that of the chain; the backward pass keeps the features only.

    Raises:
        ZooError: ``steps`` is not one of 3 to 6.

    It is meant for GPUs, ``torch.compile``, export and ONNX, where no fast eigendecomposition exists. On a CPU
    :func:`matrix_power` gives the exact root at the same cost; there, from 64 rows, the chain takes the eigenvalues.

    >>> import torch
    >>> x = torch.tensor([[[3.0, -3.0, 3.0, -3.0], [1.0, 1.0, -1.0, -1.0]]])
    >>> minimax_sqrt(x, steps=6).round(decimals=3)
    tensor([[[3., 0.],
             [0., 1.]]])

    Source: the polynomials of Amsel, Persson, Musco and Gower, "The Polar Express", arXiv 2505.16932, carried over to
    the square root; ``scripts/minimax_coefficients.py`` computes them.
    """
    check_steps(steps)
    x, chain = as_matrix(x), COEFFICIENTS[steps]
    with without_autocast(x):
        if is_exported():
            return polar_root(x, chain, center)
        half = x.dtype in (torch.float16, torch.bfloat16)
        if not half and not torch.compiler.is_compiling() and eigen_is_faster(x, side(x), steps):
            return spectral_function(x, partial(on_eigenvalues, steps=chain), center)
        out: Tensor = PolarRoot.apply(x, chain, center)
        return out

"""Inverse covariance by Newton–Schulz, and its sparse estimate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gcpzoo.functional import lapack
from gcpzoo.functional.checks import check_count
from gcpzoo.functional.covariance import as_matrix, centered, covariance, unit_scale
from gcpzoo.functional.newton_schulz import eigen_is_faster, iterate, trace_or_one
from gcpzoo.functional.precision import hand_written
from gcpzoo.functional.small_side import symmetric_product
from gcpzoo.functional.spectral import loewner
from gcpzoo.functional.tracing import is_exported

STEPS = 7
"""Newton–Schulz steps of one inverse in the released code."""
GAP = 1e-11
"""Distance to which eigenvalues are moved apart where they are divided by, in parts of the trace."""


def _inverse_and_slope(w: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """The polynomial :math:`z_N^2` that approximates 1/w on eigenvalues in [0, 1], and its derivative."""
    inverse, slope, v, dv = torch.ones_like(w), torch.zeros_like(w), w, torch.ones_like(w)
    for _ in range(iterations):
        t, dt = (3 - v) / 2, -dv / 2
        slope = t * (slope * t + 2 * inverse * dt)
        dv = t * (dv * t + 2 * v * dt)
        inverse, v = inverse * t * t, v * t * t
    return inverse, slope


class _Inverse(torch.autograd.Function):
    """``a, iterations ->`` the inverse: by products, or where that is faster on the eigenvalues.

    The result is a polynomial of the matrix: its derivative is self-adjoint, so that the gradient is the derivative in
    the direction of the symmetrized cotangent.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, iterations: int) -> Tensor:
        trace = trace_or_one(a)
        a = a / trace
        ctx.iterations = iterations
        ctx.eigen = not torch.compiler.is_compiling() and eigen_is_faster(a, a.shape[1], iterations)
        if not ctx.eigen:
            z, _ = iterate(a, iterations, divided=True)
            out = symmetric_product(z, z)
            ctx.save_for_backward(trace, out, a)
            return out / trace
        w, u = lapack.eigh(a.double())  # the polynomial is steep at 0: float32's eigenvalues lose a digit there
        u = u.to(a.dtype)
        inverse, _ = _inverse_and_slope(w, iterations)
        ctx.save_for_backward(trace, w, u)
        return symmetric_product(u * (inverse[:, None] / trace).to(u.dtype), u.mT)

    @staticmethod
    @hand_written
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        trace, *saved = ctx.saved_tensors
        c = (grad + grad.mT) / 2
        if ctx.eigen:
            w, u = saved
            step = GAP * torch.arange(w.shape[1], dtype=w.dtype, device=w.device)
            w = (w - step).cummax(1).values + step
            value, slope = _inverse_and_slope(w, ctx.iterations)
            d = symmetric_product(u.mT @ c, u)
            diagonal = d.diagonal(dim1=1, dim2=2)
            by_trace = -(diagonal * (value + slope * w)).sum(1)
            # Differences alone count, and none of the eigenvalues may look like zero.
            d = d * loewner(w - w[:, :1] + GAP, value, slope).to(d.dtype)
            d.diagonal(dim1=1, dim2=2).add_(by_trace.to(d.dtype)[:, None])
            d = symmetric_product(u @ d, u.mT)
        else:
            value, a = saved
            z, dz = iterate(a, ctx.iterations, True, c)
            assert dz is not None
            d = dz @ z
            d = d + d.mT
            by_trace = -(c * value).sum((1, 2)) - (d * a).sum((1, 2))
            d.diagonal(dim1=1, dim2=2).add_(by_trace[:, None])
        return d.div_(trace).div_(trace), None


def newton_schulz_inverse(a: Tensor, iterations: int = STEPS, jitter: Tensor | float = 0.5) -> Tensor:
    r"""Approximate inverse of positive semi-definite matrices, the square of Newton–Schulz's inverse root.

    .. math:: I(A) = Z_N^2/\operatorname{tr}A',\qquad A' = A + 10^{-10}\,\mathbf 1\mathbf 1^\top
              + 10^{-9}\operatorname{diag}(u)

    with the iteration of :func:`newton_schulz_sqrt` on :math:`A'/\operatorname{tr}A'`. Seven steps are far from the
    inverse: an eigenvalue of 0 comes out as 292, the largest value that they can give, where the inverse has infinity.

    Args:
        a: ``(B, d, d)``, symmetric.
        iterations: N.
        jitter: u in [0, 1], one number or ``(d,)``. The released code draws it at random, anew in each call; here it is
            that draw's mean. It matters about 1e-7.

    Returns:
        ``(B, d, d)``.

    >>> import torch
    >>> newton_schulz_inverse(torch.diag(torch.tensor([4.0, 2.0]))[None]).diagonal(dim1=1, dim2=2)
    tensor([[0.2500, 0.5000]])

    Source: Rahman et al., CVPR 2023, algorithm 1; the released code's constants.
    """
    check_count("iterations", iterations)
    d = a.shape[1]
    u = torch.as_tensor(jitter, dtype=a.dtype, device=a.device).expand(d)
    a = a + (1e-10 + torch.diag(1e-9 * u))
    if is_exported():
        trace = trace_or_one(a)
        z, _ = iterate(a / trace, iterations, divided=True)
        return z @ z / trace
    out: Tensor = _Inverse.apply(a, iterations)
    return out


def _trace(a: Tensor) -> Tensor:
    """``(B, 1, 1)``."""
    return a.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]


def inverse_covariance(x: Tensor, iterations: int = STEPS, jitter: Tensor | float = 0.5) -> Tensor:
    """Approximate inverse of the covariance of ``x``, :func:`newton_schulz_inverse`.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        iterations, jitter: see :func:`newton_schulz_inverse`.

    Returns:
        ``(B, d, d)``; zeros for a sample without variance.

    >>> import torch
    >>> x = torch.tensor([[[2.0, -2.0, 2.0, -2.0], [1.0, 1.0, -1.0, -1.0]]])
    >>> inverse_covariance(x).diagonal(dim1=1, dim2=2)
    tensor([[0.2500, 1.0000]])

    Source: Rahman et al., CVPR 2023, the control of its experiments.
    """
    sigma, silent = covariance(x), _silent(x)
    inverse = newton_schulz_inverse(_or_identity(sigma, silent), iterations, jitter)
    return torch.where(silent, 0, inverse)


def _silent(x: Tensor) -> Tensor:
    """Tell which samples have no variance but that of rounding, ``(B, 1, 1)``."""
    x = unit_scale(as_matrix(x)).detach()
    least = (8 * torch.finfo(x.dtype).eps) ** 2 * x.square().mean(2).sum(1)
    return (centered(x).square().mean(2).sum(1) <= least)[:, None, None]


def _or_identity(a: Tensor, silent: Tensor) -> Tensor:
    """The matrix, or I/d for a silent sample, whose gradient is then finite."""
    d = a.shape[1]
    return torch.where(silent, torch.eye(d, dtype=a.dtype, device=a.device) / d, a)


def sparse_inverse_covariance(
    x: Tensor,
    steps: int = 5,
    sparsity: float = 0.01,
    rate: float = 1.0,
    iterations: int = STEPS,
    jitter: Tensor | float = 0.5,
) -> Tensor:
    r"""Sparse estimate of the inverse of the trace-normalized covariance, by steps on its positive and negative parts.

    .. math:: C = \Sigma/\operatorname{tr}\Sigma,\quad P_0 = I(C),\qquad g = C - I(P),\quad
              s_i = \lambda\Bigl(1 - \tfrac i{n-1}\Bigr),

    .. math:: P^+ = [[P]_+ - s_i(g + \rho)]_+,\quad P^- = [[-P]_+ - s_i(\rho - g)]_+,\quad P \leftarrow P^+ - P^-

    with :func:`newton_schulz_inverse` for I. The last of n steps has the length 0 and is left out, so that n - 1 count;
    n = 1 makes one step of full length.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        steps: n.
        sparsity: :math:`\rho`.
        rate: :math:`\lambda`.
        iterations, jitter: see :func:`newton_schulz_inverse`.

    Returns:
        :math:`P/\sqrt{\operatorname{tr}P}`, ``(B, d, d)``; zeros for a sample without variance. The gradient jumps
        where an entry meets a threshold: with d = 256 the rounding of float32 takes a few of 65,536 entries across,
        which can be 1e-2 of the gradient.

    >>> import torch
    >>> x = torch.tensor([[[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]]])  # the inverse of C is 2I
    >>> sparse_inverse_covariance(x, sparsity=0).abs().round(decimals=4)
    tensor([[[1., 0.],
             [0., 1.]]])

    Source: Rahman et al., CVPR 2023, algorithm 2.
    """
    check_count("steps", steps)
    sigma, silent = covariance(unit_scale(centered(as_matrix(x))), center=False), _silent(x)
    c = _or_identity(sigma / torch.where(silent, 1, _trace(sigma)), silent)
    p = newton_schulz_inverse(c, iterations, jitter)
    for i in range(max(steps - 1, 1)):
        length = rate * (1 - i / max(steps - 1, 1))
        g = length * (c - newton_schulz_inverse(p, iterations, jitter))
        threshold = length * sparsity
        p = (p.relu() - g - threshold).relu() - ((-p).relu() + g - threshold).relu()
    return torch.where(silent, 0, p / trace_or_one(p).sqrt())

"""Matrix square root by coupled Newton–Schulz iteration, on the smaller side of the data matrix."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from gcpzoo.functional.checks import check_count
from gcpzoo.functional.covariance import as_matrix
from gcpzoo.functional.precision import hand_written, triton_precision
from gcpzoo.functional.small_side import (
    features,
    few_positions,
    gram,
    side,
    symmetric_function,
    symmetric_product,
)
from gcpzoo.functional.spectral import spectral_function
from gcpzoo.functional.tracing import is_exported


def iterate(a: Tensor, iterations: int, divided: bool, da: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    r"""Newton–Schulz in product form, and its derivative in a symmetric direction.

    With :math:`W_k = Z_kY_k` the iteration reads :math:`T_k = (3I - W_k)/2,\ W_{k+1} = W_kT_k^2`, and either root is a
    running product: :math:`Y_N = A\prod T_k` or :math:`Z_N = \prod T_k`. All factors commute, so that each product of
    two symmetric matrices is symmetric; 12 products for 5 steps, and 24 more for the derivative.

    Args:
        a: ``(B, n, n)``, symmetric, eigenvalues in [0, 1].
        iterations: N.
        divided: give :math:`Z_N` instead of :math:`Y_N = AZ_N`.
        da: direction of the derivative, ``(B, n, n)``, symmetric.

    Returns:
        The root, and its derivative where ``da`` is given.

    >>> import torch
    >>> a = torch.diag(torch.tensor([0.64, 0.36]))[None]
    >>> root, _ = iterate(a, iterations=10, divided=False)
    >>> root.diagonal(dim1=1, dim2=2)
    tensor([[0.8000, 0.6000]])
    """
    if a.is_cuda and not torch.compiler.is_compiling() and triton_precision():
        from gcpzoo.functional import triton_newton_schulz as fused

        if (precision := fused.precision(a)) is not None:
            return fused.iterate(a, iterations, divided, da, precision)
    w, dw = a, da
    p = dp = e = de = None
    eye = 1.5 * torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    for k in range(iterations):
        t = torch.add(eye, w, alpha=-0.5)
        last = k == iterations - 1
        if not last or (k == 0 and not divided):
            e = symmetric_product(w, t)
            de = None if dw is None else symmetric_product(dw, t, w, dw)
        if p is None:
            p, dp = (t, None if dw is None else dw * -0.5) if divided else (e, de)
        else:
            dp = None if dw is None or dp is None else symmetric_product(dp, t, p, dw)
            p = symmetric_product(p, t)
        if not last and e is not None:
            dw = None if dw is None or de is None else symmetric_product(de, t, e, dw)
            w = symmetric_product(e, t)
    assert p is not None
    return p, dp


def trace_or_one(a: Tensor) -> Tensor:
    """Traces ``(B, 1, 1)``; 1 where the matrix is zero, so that zero maps to zero.

    >>> import torch
    >>> trace_or_one(torch.tensor([[[2.0]], [[0.0]]])).flatten()
    tensor([2., 1.])
    """
    trace = a.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    return torch.where(trace > 0, trace, 1)


def _root(a: Tensor, iterations: int, divided: bool) -> Tensor:
    """√tr · Y_N(A/tr), or ``divided`` by A: Z_N(A/tr)/√tr."""
    trace = trace_or_one(a)
    root, _ = iterate(a / trace, iterations, divided)
    return root * trace.rsqrt() if divided else root * trace.sqrt()


class NewtonSchulz(torch.autograd.Function):
    """``x, iterations, center ->`` the root, iterated on the smaller side.

    It saves the features and one matrix of that side; the backward pass recomputes the iteration. A polynomial's
    derivative at a symmetric matrix is self-adjoint, so that the gradient is the Fréchet derivative in the direction of
    the symmetrized cotangent.

    >>> import torch
    >>> NewtonSchulz.apply(torch.tensor([[[2.0, -2.0]]]), 5, True)
    tensor([[[2.]]])
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, iterations: int, center: bool) -> Tensor:
        y = features(x, center)
        a, small = gram(y)
        ctx.save_for_backward(x, a)
        ctx.iterations, ctx.center = iterations, center
        root = _root(a, iterations, small)
        return y @ (root / y.shape[2]) @ y.mT if small else root

    @staticmethod
    @hand_written
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, a = ctx.saved_tensors
        y = features(x, ctx.center)
        small = few_positions(y)
        c = grad + grad.mT  # twice the symmetrized cotangent
        cy = c @ y if small else y
        k = y.mT @ cy / y.shape[2] if small else c
        trace = trace_or_one(a)
        a = a / trace
        root, d = iterate(a, ctx.iterations, small, k)
        assert d is not None
        # The root is t^q p(A/t) with t = tr A: its derivative in t belongs to every diagonal entry.
        q = -0.5 if small else 0.5
        by_trace = q * (k * root).sum((1, 2)) - (d * a).sum((1, 2))
        d.diagonal(dim1=1, dim2=2).add_(by_trace[:, None])
        factor = trace ** ((q - 1) / 2)  # its square overflows for small features, the product does not
        d.mul_(factor).mul_(factor)
        dy = torch.baddbmm(cy @ (root * trace**q), y, d) if small else d @ y
        return dy / y.shape[2], None, None


def polynomial(w: Tensor, spectrum: Tensor, iterations: int) -> Tensor:
    r"""Newton–Schulz on eigenvalues, :math:`\sqrt t\,y_N(w/t)` with t the sum of the spectrum.

    Args:
        w: eigenvalues ``(B, n)``.
        spectrum: all of them, ``(B, n)``.
        iterations: N.

    Returns:
        ``(B, n)``.

    >>> import torch
    >>> w = torch.tensor([[1.0, 4.0]])
    >>> polynomial(w, w, iterations=10)
    tensor([[1.0000, 2.0000]])
    """
    trace = spectrum.sum(1, keepdim=True)
    trace = torch.where(trace > 0, trace, 1)
    y = v = w / trace
    for _ in range(iterations):
        t = (3 - v) / 2
        y, v = y * t, v * t * t
    return y * trace.sqrt()


def eigen_is_faster(x: Tensor, rows: int, iterations: int) -> bool:
    """Decide where ``eigh`` beats the products: on a CPU it costs a third of the 36 products of 5 steps.

    That holds if the batch has a part for every thread; measured with one and two threads.

    Args:
        x: ``(B, …)``, the features or the matrices.
        rows: of the matrices.
        iterations: N.

    >>> import torch
    >>> eigen_is_faster(torch.ones(64, 16, 16), rows=16, iterations=5)
    False
    """
    busy = x.shape[0] >= torch.get_num_threads() or torch.get_num_threads() < 4
    return x.device.type == "cpu" and busy and rows >= 64 and iterations > 2


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
    x = as_matrix(x)
    if is_exported():
        value, divided = (partial(_root, iterations=iterations, divided=small) for small in (False, True))
        return symmetric_function(x, value, divided, center)
    if not torch.compiler.is_compiling() and eigen_is_faster(x, side(x), iterations):
        return spectral_function(x, partial(polynomial, iterations=iterations), center, precision=x.dtype)
    out: Tensor = NewtonSchulz.apply(x, iterations, center)
    return out

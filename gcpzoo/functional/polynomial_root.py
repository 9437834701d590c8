"""Matrix roots made of products only: a chain of small polynomials, on the smaller side of the data matrix.

Newton–Schulz and ``minimax`` are two such chains; they share the recurrences, the gradient and the choice of a way.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

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

Steps = tuple[tuple[float, float, float], ...]
"""Coefficients (a, b, c) of T = aI + bW + cW², one triple a step."""

NEWTON_SCHULZ = (1.5, -0.5, 0.0)


def iterate(a: Tensor, steps: Steps, divided: bool, da: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    r"""Root by the coupled iteration in product form, and its derivative in a symmetric direction.

    With :math:`W_k = Z_kY_k` the iteration reads :math:`T_k = a_kI + b_kW_k + c_kW_k^2,\ W_{k+1} = W_kT_k^2`, and
    either root is a running product: :math:`Y_N = A\prod T_k` or :math:`Z_N = \prod T_k`. All factors commute, so that
    each product of two symmetric matrices is symmetric. N steps take 3N - 3 products where all c are 0 (12 for 5), and
    4N - 3 else (13 for 4); the derivative takes 24 or 22 more.

    Args:
        a: ``(B, n, n)``, symmetric, eigenvalues in [0, 1].
        steps: the coefficients, ``((1.5, -0.5, 0.0),) * N`` for Newton–Schulz.
        divided: give :math:`Z_N` instead of :math:`Y_N = AZ_N`.
        da: direction of the derivative, ``(B, n, n)``, symmetric.

    Returns:
        The root, and its derivative where ``da`` is given.

    >>> import torch
    >>> a = torch.diag(torch.tensor([0.64, 0.36]))[None]
    >>> root, _ = iterate(a, (NEWTON_SCHULZ,) * 10, divided=False)
    >>> root.diagonal(dim1=1, dim2=2)
    tensor([[0.8000, 0.6000]])
    """
    if a.is_cuda and not torch.compiler.is_compiling() and triton_precision() and set(steps) == {NEWTON_SCHULZ}:
        from gcpzoo.functional import triton_newton_schulz as fused

        if (precision := fused.precision(a)) is not None:
            return fused.iterate(a, len(steps), divided, da, precision)
    w, dw = a, da
    p = dp = e = de = None
    eye = torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    for k, (c0, c1, c2) in enumerate(steps):
        t = torch.add(c0 * eye, w, alpha=c1)
        dt, scale = dw, c1  # the derivative of T is scale * dt
        if c2:
            t = torch.add(t, symmetric_product(w, w), alpha=c2)
            if dw is not None:
                turned = dw @ w
                dt, scale = torch.add(dw * c1, turned + turned.mT, alpha=c2), 1.0
        last = k == len(steps) - 1
        if not last or (k == 0 and not divided):
            e = symmetric_product(w, t)
            de = None if dw is None else symmetric_product(dw, t, w, dt, scale)
        if p is None:
            p, dp = (t, None if dt is None else dt * scale) if divided else (e, de)
        else:
            dp = None if dp is None else symmetric_product(dp, t, p, dt, scale)
            p = symmetric_product(p, t)
        if not last and e is not None:
            dw = None if de is None else symmetric_product(de, t, e, dt, scale)
            w = symmetric_product(e, t)
    assert p is not None
    return p, dp


def _bound(entries: Tensor, trace: Tensor, frobenius: bool) -> Tensor:
    """The bound from all entries, or all eigenvalues, ``(B, K)``, and their trace ``(B, 1)``."""
    trace = torch.where(trace > 0, trace, 1)
    if not frobenius:
        return trace
    square = (entries / trace).square().sum(1, keepdim=True)  # of the quotient: plain squares leave float32's range
    return trace * torch.where(square > 0, square, 1).sqrt()


def bound(a: Tensor, frobenius: bool) -> Tensor:
    """An upper bound of the largest eigenvalue: the trace, or the Frobenius norm, which is smaller.

    Args:
        a: ``(B, n, n)``, symmetric positive semi-definite.
        frobenius: the norm instead of the trace.

    Returns:
        ``(B, 1, 1)``; 1 where the matrix is zero, so that zero maps to zero.

    >>> import torch
    >>> a = torch.diag(torch.tensor([3.0, 4.0]))[None]
    >>> float(bound(a, frobenius=False)), float(bound(a, frobenius=True))
    (7.0, 5.0)
    """
    return _bound(a.flatten(1), a.diagonal(dim1=1, dim2=2).sum(1)[:, None], frobenius)[..., None]


def _root(a: Tensor, steps: Steps, frobenius: bool, divided: bool) -> Tensor:
    """√t · Y_N(A/t), or ``divided`` by A: Z_N(A/t)/√t, with t the bound."""
    t = bound(a, frobenius)
    root, _ = iterate(a / t, steps, divided)
    return root * t.rsqrt() if divided else root * t.sqrt()


def gradient(x: Tensor, a: Tensor, steps: Steps, frobenius: bool, center: bool, grad: Tensor) -> Tensor:
    """Gradient of :class:`PolynomialRoot` in the features.

    A polynomial's derivative at a symmetric matrix is self-adjoint, so that the gradient is the Fréchet derivative in
    the direction of the symmetrized cotangent.

    Args:
        x: features ``(B, d, M)``.
        a: :func:`~gcpzoo.functional.small_side.gram` of them.
        steps, frobenius, center: as in the forward pass.
        grad: the cotangent, ``(B, d, d)``.

    Returns:
        ``(B, d, M)``.

    >>> import torch
    >>> x = torch.tensor([[[2.0, -2.0]]])  # the root is |x|
    >>> gradient(x, torch.tensor([[[4.0]]]), (NEWTON_SCHULZ,), False, True, torch.ones(1, 1, 1))
    tensor([[[ 0.5000, -0.5000]]])
    """
    y = features(x, center)
    small = few_positions(y)
    c = grad + grad.mT  # twice the symmetrized cotangent
    cy = c @ y if small else y
    k = y.mT @ cy / y.shape[2] if small else c
    t = bound(a, frobenius)
    a = a / t
    root, d = iterate(a, steps, small, k)
    assert d is not None
    # The root is t^q p(A/t). The derivative of t in A is I for the trace and A/t for the norm.
    q = -0.5 if small else 0.5
    by_bound = (q * (k * root).sum((1, 2)) - (d * a).sum((1, 2)))[:, None]
    if frobenius:
        d.addcmul_(a, by_bound[:, None])
    else:
        d.diagonal(dim1=1, dim2=2).add_(by_bound)
    factor = t ** ((q - 1) / 2)  # its square overflows for small features, the product does not
    d.mul_(factor).mul_(factor)
    dy = torch.baddbmm(cy @ (root * t**q), y, d) if small else d @ y
    return dy / y.shape[2]


class PolynomialRoot(torch.autograd.Function):
    """``x, steps, frobenius, center ->`` the root, iterated on the smaller side.

    It saves the features and one matrix of that side; the backward pass recomputes the iteration.

    >>> import torch
    >>> PolynomialRoot.apply(torch.tensor([[[2.0, -2.0]]]), (NEWTON_SCHULZ,) * 5, False, True)
    tensor([[[2.]]])
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: Steps, frobenius: bool, center: bool) -> Tensor:
        y = features(x, center)
        a, small = gram(y)
        ctx.save_for_backward(x, a)
        ctx.steps, ctx.frobenius, ctx.center = steps, frobenius, center
        root = _root(a, steps, frobenius, small)
        return y @ (root / y.shape[2]) @ y.mT if small else root

    @staticmethod
    @hand_written
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        x, a = ctx.saved_tensors
        return gradient(x, a, ctx.steps, ctx.frobenius, ctx.center, grad), None, None, None


def eigenvalue_root(w: Tensor, spectrum: Tensor, steps: Steps, frobenius: bool) -> Tensor:
    r"""The chain on eigenvalues, :math:`\sqrt t\,y_N(w/t)` with t the sum of the spectrum, or its norm.

    Args:
        w: eigenvalues ``(B, n)``.
        spectrum: all of them, ``(B, n)``.
        steps, frobenius: the coefficients; the norm instead of the sum.

    Returns:
        ``(B, n)``.

    >>> import torch
    >>> w = torch.tensor([[1.0, 4.0]])
    >>> eigenvalue_root(w, w, (NEWTON_SCHULZ,) * 10, frobenius=False)
    tensor([[1.0000, 2.0000]])
    """
    t = _bound(spectrum, spectrum.sum(1, keepdim=True), frobenius)
    y = v = w / t
    for c0, c1, c2 in steps:
        factor = c0 + c1 * v + c2 * v * v if c2 else c0 + c1 * v
        y, v = y * factor, v * factor * factor
    return y * t.sqrt()


def _eigen_is_faster(x: Tensor, steps: Steps) -> bool:
    """Decide where ``eigh`` beats the products: on a CPU it costs a third of the 36 products of 5 steps.

    That holds if the batch has a part for every thread; measured with one and two threads.
    """
    busy = x.shape[0] >= torch.get_num_threads() or torch.get_num_threads() < 4
    return x.device.type == "cpu" and busy and side(x) >= 64 and len(steps) > 2


def polynomial_root(x: Tensor, steps: Steps, frobenius: bool, center: bool) -> Tensor:
    """The root of the covariance of ``x`` by a chain of polynomials, in the way that is fastest here.

    It is iterated on the smaller side of the data matrix, or, on a CPU from 64 rows, evaluated on its eigenvalues; the
    two agree to rounding. An exporter gets plain products.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``, float32 or float64.
        steps: coefficients of the chain.
        frobenius: divide by the Frobenius norm before, instead of the trace.
        center: ``False`` takes the second moment instead of the covariance.

    Returns:
        ``(B, d, d)``.

    >>> import torch
    >>> x = torch.tensor([[[3.0, -3.0, 3.0, -3.0], [1.0, 1.0, -1.0, -1.0]]])
    >>> polynomial_root(x, (NEWTON_SCHULZ,) * 10, False, True).diagonal(dim1=1, dim2=2)
    tensor([[3., 1.]])
    """
    x = as_matrix(x)
    if is_exported():
        value, divided = (partial(_root, steps=steps, frobenius=frobenius, divided=small) for small in (False, True))
        return symmetric_function(x, value, divided, center)
    if not torch.compiler.is_compiling() and _eigen_is_faster(x, steps):
        chain = partial(eigenvalue_root, steps=steps, frobenius=frobenius)
        return spectral_function(x, chain, center, precision=x.dtype)
    out: Tensor = PolynomialRoot.apply(x, steps, frobenius, center)
    return out

"""Functions of the eigenvalues of a covariance, exact in value and gradient, by ``eigh`` on its smaller side."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gcpzoo.functional import lapack
from gcpzoo.functional.checks import check_choice, check_positive
from gcpzoo.functional.covariance import as_matrix
from gcpzoo.functional.precision import hand_written
from gcpzoo.functional.small_side import features, gram, symmetric_product

SpectralMap = Callable[[Tensor, Tensor], Tensor]

NORMS = (None, "l2", "frobenius")
ROUNDING_SCALE = 2.0**24  # float32 rounds numbers up to 1 by at most 2⁻²⁵, which this scales into float16's range


def spread(w: Tensor) -> Tensor:
    """Move repeated eigenvalues to relative distances of 1e-8; zeros stay.

    Args:
        w: ``(B, n)``, ascending, non-negative.

    Returns:
        ``(B, n)``.

    >>> import torch
    >>> w = spread(torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64))
    >>> w.diff()
    tensor([[0.0000e+00, 1.0000e+00, 1.0000e-08]], dtype=torch.float64)
    """
    step = 1e-8 * torch.arange(w.shape[1], dtype=w.dtype, device=w.device)
    log = torch.where(w > 0, w, torch.finfo(w.dtype).tiny).log() - step
    return w * (log.cummax(1).values - log).exp()


def loewner(w: Tensor, value: Tensor, slope: Tensor) -> Tensor:
    r"""Loewner matrix of divided differences of a function between its arguments.

    .. math:: L_{ij} = \frac{f(\lambda_i)-f(\lambda_j)}{\lambda_i-\lambda_j},\quad L_{ii} = f'(\lambda_i)

    Args:
        w: eigenvalues ``(B, n)`` from :func:`spread`, so that quotients keep eight digits of float64.
        value, slope: of the function at them.

    Returns:
        ``(B, n, n)``, finite; 0 between two zeros.

    >>> import torch
    >>> w = torch.tensor([[1.0, 4.0]])
    >>> loewner(w, w.sqrt(), 0.5 / w.sqrt())
    tensor([[[0.5000, 0.3333],
             [0.3333, 0.2500]]])
    """
    quotient = value[:, :, None] - value[:, None]
    quotient.div_(w[:, :, None] - w[:, None]).nan_to_num_(0)
    quotient.diagonal(dim1=1, dim2=2).copy_(torch.where(w > 0, slope, 0))
    return quotient


def _divide_or_zero(a: Tensor, w: Tensor) -> Tensor:
    """``a / w``, and 0 where ``w`` is 0."""
    return torch.where(w == 0, 0, a / torch.where(w == 0, 1, w))


def eigh(a: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in float64 with rounding noise set to 0, and eigenvectors.

    Args:
        a: ``(B, n, n)``, symmetric positive semi-definite.

    Returns:
        ``(B, n)``, ascending, NaN for a sample that is not finite; ``(B, n, n)`` in the dtype of ``a``.

    >>> import torch
    >>> eigh(torch.diag(torch.tensor([2.0, 1e-20]))[None])[0]
    tensor([[0., 2.]], dtype=torch.float64)
    """
    w, v = lapack.eigh(a)
    w = w.double()
    return torch.where(w <= w.shape[1] * torch.finfo(torch.float64).eps * w[:, -1:], 0, w), v


def _features(x: Tensor, center: bool, precision: torch.dtype) -> Tensor:
    """Take :func:`features` in another dtype without a second buffer."""
    y = x.to(precision)
    return features(y, center) if y is x or not center else y.sub_(y.mean(2, keepdim=True))


class _SpectralFunction(torch.autograd.Function):
    """``x, f, center, precision ->`` f of the covariance: ``eigh`` in ``precision``, products in the dtype of ``x``.

    It saves the eigenvalues and, on the M×M side, U and UᵀY, from G = V Λ Vᵀ as U = Y V (ΛM)^(-1/2) and
    UᵀY = (ΛM)^(1/2) Vᵀ; on the d×d side the features, U and, in 16 bits, what U lost in rounding. The last is left out
    where f is smooth, which does not need an accurate UᵀY for small eigenvalues.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: SpectralMap, center: bool, precision: torch.dtype) -> Tensor:
        y = _features(x, center, precision)
        a, small = gram(y)
        w, v = eigh(a)
        values = f(w, w)
        smooth = precision == torch.float32
        if smooth:  # what eigenvalues lost in rounding contribute is kept
            w = w.clamp_min(torch.finfo(precision).eps * w[:, -1:])
            values = f(w, w) if small else values
        length = (w * x.shape[2]).sqrt()
        u = (y @ v * _divide_or_zero(length, length**2)[:, None].to(precision) if small else v).to(x.dtype)
        if ctx.needs_input_grad[0]:
            if small:
                ctx.save_for_backward(w, u, (v.mT * length[:, :, None].to(precision)).to(x.dtype))
            else:
                ctx.save_for_backward(w, u, x, *([] if smooth else [((v - u) * ROUNDING_SCALE).half()]))
            ctx.f, ctx.small, ctx.smooth, ctx.center, ctx.positions = f, small, smooth, center, x.shape[2]
        return symmetric_product(u * values[:, None].to(x.dtype), u.mT)

    @staticmethod
    @hand_written
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        w, u, rotated, *lost = ctx.saved_tensors  # on the d×d side the features instead of rotated
        cu = (grad + grad.mT) @ u  # twice the symmetrized cotangent
        p = symmetric_product(u.mT, cu)
        with torch.enable_grad():
            own, spectrum = spread(w).requires_grad_(), w.detach().requires_grad_()
            value = ctx.f(own, spectrum)
            (slope,) = torch.autograd.grad(value.sum(), own, retain_graph=True)
            weight = p.diagonal(dim1=1, dim2=2).to(w.dtype)
            (shared,) = torch.autograd.grad(value, spectrum, weight, allow_unused=True)  # by way of the whole spectrum
        own, value = own.detach(), value.detach()
        divided, g = loewner(own, value, slope), _divide_or_zero(value, own)
        # U is complete on the d×d side; on the M×M side the rest has the divided difference with zero, g.
        p *= (divided.sub_(g[:, None]) if ctx.small else divided).to(p.dtype)
        if shared is not None:
            p.diagonal(dim1=1, dim2=2).add_(shared.to(p.dtype))
        m = ctx.positions
        p /= m
        if ctx.small:
            inner = torch.baddbmm(cu.mul_((g / m)[:, None].to(p.dtype)), u, p)
        elif ctx.smooth:
            inner, rotated = symmetric_product(u @ p, u.mT), features(rotated, ctx.center)
        else:
            v = (lost[0].to(w.dtype) / ROUNDING_SCALE).add_(u)
            inner, rotated = u @ p, (v.mT @ _features(rotated, ctx.center, w.dtype)).to(p.dtype)
        return inner @ rotated, None, None, None


def spectral_function(x: Tensor, f: SpectralMap, center: bool = True, precision: torch.dtype = torch.float64) -> Tensor:
    r"""Any function of the covariance's eigenvalues, :math:`f(\Sigma) = U f(\Lambda) U^\top`, with its exact gradient.

    The gradient is :math:`U((U^\top G U)\circ L)U^\top` with the Loewner matrix L of ``f``, finite for repeated
    eigenvalues. Where d > M the M×M matrix :math:`X_c^\top X_c/M` is decomposed instead.

    Eigenvalues at or below ``min(d, M) * eps(float64)`` times the largest count as 0. Between two null directions L
    is f'(0); where that is infinite, as for the square root, it is set to 0. The features are orthogonal to the null
    space, so that this block never reaches their gradient: nothing is lost.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        f: ``f(w, spectrum)`` of eigenvalues ``w`` ``(B, n)``, element-wise in ``w`` and 0 at 0, differentiable; it may
            use all eigenvalues ``spectrum`` ``(B, n)``, ascending, for a normalization.
        center: ``False`` takes the second moment instead of the covariance.
        precision: dtype of the covariance and of ``eigh``. float64 resolves singular values of the features down to
            1e-8 of the largest; float32 (for smooth ``f``) only down to 3e-4. What follows are products with
            orthonormal factors, in the dtype of ``x``.

    Returns:
        ``(B, d, d)`` in the dtype of ``x``; a sample that is not finite gives NaN and leaves the others alone.

    >>> import torch
    >>> x = torch.tensor([[[3.0, -3.0, 3.0, -3.0], [1.0, 1.0, -1.0, -1.0]]])  # eigenvalues 9 and 1
    >>> spectral_function(x, lambda w, spectrum: w / spectrum.sum(1, keepdim=True)).round(decimals=4)
    tensor([[[0.9000, 0.0000],
             [0.0000, 0.1000]]])

    Source: Ionescu et al., ICCV 2015, section 4 (the gradient); Li et al., ICCV 2017, section 3.2.
    """
    x = as_matrix(x)
    out: Tensor = _SpectralFunction.apply(x, f, center, torch.promote_types(precision, x.dtype))
    return out


def matrix_power(x: Tensor, alpha: float = 0.5, norm: str | None = None, center: bool = True) -> Tensor:
    r"""Exact power of the covariance, :math:`\Sigma^\alpha = U\Lambda^\alpha U^\top`, optionally normalized.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        alpha: the power, > 0; ½ is the square root.
        norm: ``"l2"`` divides by :math:`\lambda_1^\alpha`, ``"frobenius"`` by :math:`\lVert\Lambda^\alpha\rVert_2`.
        center: ``False`` takes the second moment instead of the covariance.

    Returns:
        ``(B, d, d)`` in the dtype of ``x``; zeros with a finite gradient for an all-zero covariance. Precision, rank
        deficiency and gradient: see :func:`spectral_function`.

    Raises:
        ValueError: ``alpha`` is not positive, or unknown ``norm``.

    >>> import torch
    >>> x = torch.tensor([[[3.0, -3.0, 3.0, -3.0], [1.0, 1.0, -1.0, -1.0]]])
    >>> matrix_power(x, alpha=0.5).round(decimals=4)
    tensor([[[3., 0.],
             [0., 1.]]])

    Source: Li et al., ICCV 2017, eqs. (4)-(6).
    """
    check_positive("alpha", alpha)
    check_choice("norm", norm, NORMS)

    def power(w: Tensor, spectrum: Tensor) -> Tensor:
        value = w.sqrt() if alpha == 0.5 else w.pow(alpha)
        if norm is None:
            return value
        spectrum = spectrum[:, -1:] if norm == "l2" else spectrum
        length = torch.where(spectrum > 0, spectrum, 1).pow(2 * alpha).mul(spectrum > 0).sum(1, keepdim=True)
        return value / torch.where(length > 0, length, 1).sqrt()

    return spectral_function(x, power, center)


def matrix_log(x: Tensor, eps: float = 1e-3, center: bool = True) -> Tensor:
    r"""Logarithm of the covariance, :math:`\log(\Sigma + \epsilon I)`.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        eps: added to every eigenvalue, > 0: the logarithm of a rank-deficient covariance does not exist.
        center: ``False`` takes the second moment instead of the covariance.

    Returns:
        ``(B, d, d)`` in the dtype of ``x``.

    Raises:
        ValueError: ``eps`` is not positive.

    >>> import torch
    >>> x = torch.tensor([[[3.0, -3.0, 3.0, -3.0], [1.0, 1.0, -1.0, -1.0]]])
    >>> matrix_log(x, eps=1.0).round(decimals=4)  # log 10 and log 2
    tensor([[[2.3026, 0.0000],
             [0.0000, 0.6931]]])

    Source: Ionescu et al., ICCV 2015, section 4.
    """
    check_positive("eps", eps)
    out = spectral_function(x, lambda w, _: (w / eps).log1p(), center)
    return out + math.log(eps) * torch.eye(out.shape[1], dtype=out.dtype, device=out.device)

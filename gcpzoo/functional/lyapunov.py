"""Square roots by Padé approximant or Taylor polynomial, with the gradient from a Lyapunov equation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from gcpzoo.functional.precision import hand_written
from gcpzoo.functional.small_side import features, gram

# [5/5] Padé approximant of √(1-z)
NUMERATOR = (1.0, -2.75, 2.75, -1.203125, 0.21484375, -0.0107421875)
DENOMINATOR = (1.0, -2.25, 1.75, -0.546875, 0.05859375, -0.0009765625)
STEPS = 8


def _taylor(power: float, degree: int = 10) -> list[float]:
    """Taylor coefficients of ``(1-z)**power``."""
    return list(accumulate(range(1, degree + 1), lambda c, k: c * (k - 1 - power) / k, initial=1.0))


def _norm(a: Tensor) -> Tensor:
    """Frobenius norms ``(B, 1, 1)``; 1 for zero matrices."""
    norm = torch.linalg.matrix_norm(a, keepdim=True)
    return torch.where(norm > 0, norm, 1)


def _deflated(p: Sequence[float]) -> list[float]:
    """Coefficients of (p(z) - p(1))/(1 - z)."""
    return [-sum(p[k:]) for k in range(1, len(p))]


def _polynomials(z: Tensor, *coefficients: Sequence[float]) -> list[Tensor]:
    """Polynomials of one matrix that share its powers."""
    power = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    sums = [c[0] * power for c in coefficients]
    for k in range(1, len(coefficients[0])):
        power = z if k == 1 else power @ z
        sums = [s + c[k] * power for s, c in zip(sums, coefficients)]
    return sums


def lyapunov_solve(q: Tensor, g: Tensor, scale: Tensor, steps: int = STEPS) -> Tensor:
    r"""Solution X of :math:`QX + XQ = G` by ``steps`` coupled Newton–Schulz steps of the matrix sign function.

    .. math:: B_0 = Q/s,\ C_0 = G/s,\quad B_{k+1} = \tfrac12B_k(3I - B_k^2),\quad
              C_{k+1} = \tfrac12\bigl(C_k(3I - B_k^2) - B_k(B_kC_k - C_kB_k)\bigr),\quad X \approx \tfrac12C_N

    Args:
        q: ``(B, d, d)``, symmetric positive definite.
        g: ``(B, d, d)``.
        scale: s, ``(B, 1, 1)``, so that the eigenvalues of Q/s lie in (0, √3).
        steps: N; 8 in the paper, too few to converge where the condition number of Q is above about 20.

    Returns:
        ``(B, d, d)``.

    >>> import torch
    >>> q = torch.diag(torch.tensor([1.0, 2.0]))[None]
    >>> lyapunov_solve(q, torch.ones(1, 2, 2), scale=torch.tensor(2.0))
    tensor([[[0.5000, 0.3333],
             [0.3333, 0.2500]]])

    Source: Song et al., ICLR 2022.
    """
    three = 3 * torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    b, c = q / scale, g / scale
    for step in range(steps):
        t = three - b @ b
        c = (c @ t - b @ (b @ c - c @ b)) / 2
        if step < steps - 1:
            b = b @ t / 2
    return c / 2


class _LyapunovRoot(torch.autograd.Function):
    """``a, taylor, inverse -> a^(1/2)`` or ``a^(-1/2)``."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, taylor: bool, inverse: bool) -> Tensor:
        norm = _norm(a)
        z = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device) - a / norm
        if taylor:
            (root,) = _polynomials(z, _taylor(-0.5 if inverse else 0.5))
        else:
            p, q = _polynomials(z, NUMERATOR, DENOMINATOR)
            root = torch.linalg.solve(p, q) if inverse else torch.linalg.solve(q, p)
        out = root / norm.sqrt() if inverse else root * norm.sqrt()
        out = torch.where(a.abs().amax((1, 2), keepdim=True) > 0, out, 0)
        ctx.save_for_backward(out, norm)
        ctx.inverse = inverse
        return out

    @staticmethod
    @hand_written
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        out, norm = ctx.saved_tensors
        if not ctx.inverse:
            return lyapunov_solve(out, g, norm.sqrt()), None, None
        square = out @ out
        return lyapunov_solve(out, -square @ g @ square, _norm(out)), None, None


class _CovarianceRoot(torch.autograd.Function):
    r"""``y, taylor ->`` root of :math:`\Sigma = YY^\top/M`, on the smaller side.

    Both approximants are evaluated as :math:`f(1) + (1-z)\hat f(z)`, which is 30 times more accurate in float32 than
    P/Q. On the M×M side every matrix of root and solver has the form :math:`\alpha I + YSY^\top/M`, with S a function
    of :math:`A = Y^\top Y/M`, and :math:`(\alpha I + YSY^\top/M)Y = YR` with :math:`R = \alpha I + SA`. The solver's
    iterate is only needed as :math:`CY`, which stays in the form :math:`(C_0Y)Q + YP`.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, taylor: bool) -> Tensor:
        a, ctx.small = gram(y)
        norm = _norm(a)
        a = a / norm
        z = torch.eye(a.shape[1], dtype=a.dtype, device=a.device) - a
        if taylor:
            coefficients = _taylor(0.5)
            at_one = sum(coefficients)
            (s,) = _polynomials(z, _deflated(coefficients))
        else:
            at_one = sum(NUMERATOR) / sum(DENOMINATOR)
            difference = [p - at_one * q for p, q in zip(NUMERATOR, DENOMINATOR)]
            p, q = _polynomials(z, [*_deflated(difference), 0.0], DENOMINATOR)
            s = torch.linalg.solve(q, p)
        scale = norm.sqrt()
        out = y @ (s / (y.shape[2] * scale)) @ y.mT if ctx.small else s @ a * scale
        shift = torch.where(a.abs().amax((1, 2), keepdim=True) > 0, at_one * scale, 0)
        out = torch.addcmul(out, torch.eye(out.shape[1], dtype=a.dtype, device=a.device), shift)
        ctx.at_one = at_one
        ctx.save_for_backward(y, s if ctx.small else out, norm)
        return out

    @staticmethod
    @hand_written
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        y, s, norm = ctx.saved_tensors
        m, alpha = y.shape[2], ctx.at_one
        c = g + g.mT
        if not ctx.small:
            return lyapunov_solve(s, c, norm.sqrt()) @ y / m, None
        eye = torch.eye(m, dtype=s.dtype, device=s.device)
        r = alpha * eye + s @ (y.mT @ y) / (m * norm)
        cy = c @ y / norm.sqrt()
        se = s @ (y.mT @ cy) / (m * norm)
        q, p = eye.expand_as(r), torch.zeros_like(r)
        for step in range(STEPS):
            square, pr, seq = r @ r, p @ r, se @ q
            p = (3 * p + (seq - pr) @ r - r @ (seq + r @ p - pr) - alpha * seq) / 2
            factor = (3 - alpha**2) * eye - square
            q = q @ (factor + alpha * r) / 2
            if step < STEPS - 1:
                se = (factor - alpha * r) @ se / 2
                r = r @ (3 * eye - square) / 2
                alpha = alpha * (3 - alpha**2) / 2
        return (cy @ q + y @ p) / (2 * m), None


def _lyapunov_root(a: Tensor, taylor: bool = False, inverse: bool = False) -> Tensor:
    """Check the shape and take the root."""
    if a.ndim != 3 or a.shape[1] != a.shape[2] or a.shape[1] == 0:
        raise ValueError(f"expected matrices (B, d, d) with d > 0, got shape {tuple(a.shape)}")
    out: Tensor = _LyapunovRoot.apply(a, taylor, inverse)
    return out


def mpa_sqrt(a: Tensor) -> Tensor:
    r"""Square root by the [5/5] matrix Padé approximant (MPA-Lya).

    .. math:: \sqrt{\lVert A\rVert_F}\;Q(Z)^{-1}P(Z),\qquad Z = I - A/\lVert A\rVert_F,\qquad P(z)/Q(z)\approx\sqrt{1-z}

    The gradient is :func:`lyapunov_solve` of the root and the cotangent with 8 steps, which approaches the exact one
    for well conditioned A.

    Args:
        a: ``(B, d, d)``, symmetric positive semi-definite, float32 or float64.

    Returns:
        ``(B, d, d)`` in the dtype of ``a``; zeros with a finite gradient for a zero matrix. Eigenvalues that are zero
        come out as 0.09 (Padé) or 0.18 (Taylor) times :math:`\sqrt{\lVert A\rVert_F}`: the approximant at z = 1.

    Raises:
        ValueError: not a batch of square matrices.

    >>> import torch
    >>> mpa_sqrt(torch.diag(torch.tensor([4.0, 1.0]))[None])
    tensor([[[2.0000, 0.0000],
             [0.0000, 1.0000]]])

    Source: Song et al., "Fast Differentiable Matrix Square Root", ICLR 2022.
    """
    return _lyapunov_root(a)


def mtp_sqrt(a: Tensor) -> Tensor:
    r"""Square root by the matrix Taylor polynomial of degree 10 (MTP-Lya).

    .. math:: \sqrt{\lVert A\rVert_F}\;\sum_{k=0}^{10}\tbinom{1/2}{k}(-Z)^k,\qquad Z = I - A/\lVert A\rVert_F

    Arguments, result and gradient as :func:`mpa_sqrt`.

    >>> import torch
    >>> mtp_sqrt(torch.diag(torch.tensor([4.0, 1.0]))[None])  # near 2 and 1
    tensor([[[2.0000, 0.0000],
             [0.0000, 1.00...]]])

    Source: Song et al., "Fast Differentiable Matrix Square Root", ICLR 2022.
    """
    return _lyapunov_root(a, taylor=True)


def mpa_inv_sqrt(a: Tensor) -> Tensor:
    r"""Inverse square root by the [5/5] matrix Padé approximant, :math:`P(Z)^{-1}Q(Z)/\sqrt{\lVert A\rVert_F}`.

    The gradient is that of :math:`A^{-1/2}`, the solution of :math:`RX + XR = -R^2GR^2` with R the result, by 8 steps.
    Each matrix is scaled by its own norm; the released code takes one norm for the batch, which mixes samples.

    Args:
        a: ``(B, d, d)``, symmetric positive definite, float32 or float64.

    Returns:
        ``(B, d, d)`` in the dtype of ``a``; zeros for a zero matrix.

    >>> import torch
    >>> mpa_inv_sqrt(torch.diag(torch.tensor([4.0, 1.0]))[None])
    tensor([[[0.5000, 0.0000],
             [0.0000, 1.0000]]])

    Source: Song et al., "Fast Differentiable Matrix Square Root and Inverse Square Root", TPAMI 2022.
    """
    return _lyapunov_root(a, inverse=True)


def mtp_inv_sqrt(a: Tensor) -> Tensor:
    r"""Inverse square root by the matrix Taylor polynomial of degree 10 of :math:`(1-z)^{-1/2}`.

    .. math:: \lVert A\rVert_F^{-1/2}\,\sum_{k=0}^{10}\tbinom{-1/2}{k}(-Z)^k,\qquad Z = I - A/\lVert A\rVert_F

    Arguments, result and gradient as :func:`mpa_inv_sqrt`.

    >>> import torch
    >>> mtp_inv_sqrt(torch.diag(torch.tensor([4.0, 3.0]))[None])  # near 1/2 and 1/√3
    tensor([[[0.5..., 0.0000],
             [0.0000, 0.57...]]])

    Source: Song et al., "Fast Differentiable Matrix Square Root and Inverse Square Root", TPAMI 2022.
    """
    return _lyapunov_root(a, taylor=True, inverse=True)


def lyapunov_sqrt(x: Tensor, taylor: bool = False, center: bool = True) -> Tensor:
    """:func:`mpa_sqrt`, or with ``taylor`` :func:`mtp_sqrt`, of the covariance of ``x``, on the data's smaller side.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        taylor: the Taylor polynomial instead of the Padé approximant.
        center: ``False`` takes the root of the second moment instead of the covariance.

    Returns:
        ``(B, d, d)`` in the dtype of ``x``. The solver's error is largest on the covariance's null space; the features
        are orthogonal to it, so that this block never reaches their gradient.

    >>> import torch
    >>> lyapunov_sqrt(torch.tensor([[[3.0, -3.0, 3.0, -3.0], [2.0, 2.0, -2.0, -2.0]]]))
    tensor([[[3.0000, 0.0000],
             [0.0000, 2.0000]]])

    Source: Song et al., ICLR 2022; the M×M side is exact algebra on their formulas.
    """
    out: Tensor = _CovarianceRoot.apply(features(x, center), taylor)
    return out

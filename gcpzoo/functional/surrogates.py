"""The accurate square root forward, a published approximation of the eigenvectors' gradient backward."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gcpzoo.functional import lapack
from gcpzoo.functional.checks import check_name
from gcpzoo.functional.covariance import as_matrix, covariance
from gcpzoo.functional.newton_schulz import newton_schulz_sqrt
from gcpzoo.functional.precision import hand_written
from gcpzoo.functional.released import released_centering, released_covariance
from gcpzoo.functional.small_side import few_positions, symmetric_product
from gcpzoo.functional.spectral import matrix_power

FLOOR = torch.finfo(torch.float64).eps


def _reciprocal(w: Tensor) -> Tensor:
    """1/(λi−λj), infinite where the two are equal."""
    return 1 / (w[:, :, None] - w[:, None])


def _series(w: Tensor, terms: int) -> Tensor:
    """1/(λi−λj) by the first ``terms`` of the geometric series in the ratio of the smaller to the larger."""
    a, b = w[:, :, None], w[:, None]
    larger, ratio = torch.maximum(a, b), torch.minimum(a, b) / torch.maximum(a, b)
    total = torch.ones_like(ratio)
    for _ in range(terms - 1):
        total = total * ratio + 1
    return torch.where(a > b, total, -total) / larger


RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "original": _reciprocal,
    "pade": _reciprocal,
    "taylor": partial(_series, terms=101),
    "trunc": lambda w: _reciprocal(w).clamp(-1e10, 1e10),
    "topn": _reciprocal,
    "power_iteration": partial(_series, terms=19),
}
BACKWARDS = ("exact", "newton", *RULES)


class _Root(torch.autograd.Function):
    """``x, rule, center ->`` root of the covariance and its eigenvalues, all in float64, on the smaller side.

    With fewer positions than channels, X = QR, Q ``(d, M)`` with orthonormal columns, and the covariance is that of R
    ``(M, M)`` between Q and Qᵀ, whatever the centering. The d - M eigenvalues 0 are raised to ε like all others:
    outside the range of Q the root is √ε times the identity.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: str, center: bool) -> tuple[Tensor, Tensor]:
        d, m = x.shape[1:]
        q, r = lapack.qr(x.double()) if few_positions(x) else (None, x.double())
        w, u = lapack.eigh(released_covariance(r) if center else covariance(r, center=False))
        w = w.abs().clamp_min(FLOOR)
        if rule == "topn":
            zeros = d - w.shape[1]
            w = torch.where(w.isnan(), w, w.scatter(1, w.argsort(1)[:, : max(0, 50 - zeros)], FLOOR))
        root = w.sqrt()
        if q is None:
            value, spectrum = symmetric_product(u * root[:, None], u.mT), w
        else:
            u, floor = q @ u, math.sqrt(FLOOR)
            value = symmetric_product(u * (root - floor)[:, None], u.mT)
            value.diagonal(dim1=1, dim2=2).add_(floor)
            spectrum = torch.cat([w.new_full((w.shape[0], d - m), FLOOR), w], 1)
        ctx.save_for_backward(x, w, u)
        ctx.rule, ctx.center = rule, center
        return value, spectrum

    @staticmethod
    @hand_written
    def backward(ctx: Any, grad: Tensor, grad_w: Tensor) -> tuple[Tensor, None, None]:
        x, w, u = ctx.saved_tensors
        n, small = w.shape[1], few_positions(x)
        rotated = u.mT @ (released_centering(x) if ctx.center else x.double() / x.shape[2])
        cu = (grad + grad.mT) @ u  # twice the symmetrized cotangent
        p = symmetric_product(u.mT, cu)
        divided = _divided(torch.cat([w, torch.full_like(w[:, :1], FLOOR)], 1) if small else w, ctx.rule)
        inner = p * divided[:, :n, :n]
        inner.diagonal(dim1=1, dim2=2).add_(2 * grad_w[:, -n:])
        if small:  # from the range of Q to what is outside; the block outside never reaches X
            outside = divided[:, n:, :n]
            inner = torch.baddbmm(cu * outside, u, inner - p * outside)
        else:
            inner = u @ inner
        return (inner @ rotated).to(x.dtype), None, None


def _divided(w: Tensor, rule: str) -> Tensor:
    """The rule's quotients times the differences of the roots, ``(B, n, n)``."""
    root = w.sqrt()
    gap = root[:, :, None] - root[:, None]
    divided = torch.where(gap == 0, 0, RULES[rule](w) * gap)
    divided.diagonal(dim1=1, dim2=2).copy_(0.5 / root)
    return divided


def surrogate_sqrt(x: Tensor, rule: str = "original", center: bool = True) -> tuple[Tensor, Tensor]:
    r"""Accurate square root of the covariance, its eigenvalues, and a published rule for the gradient of the root.

    Forward :math:`U\Lambda^{1/2}U^\top` in float64, eigenvalues at or below 2.2e-16 raised to that. Backward
    :math:`U\bigl((U^\top GU)\circ L\bigr)U^\top` with :math:`L_{ij} = K_{ij}(\sqrt{\lambda_i}-\sqrt{\lambda_j})`,
    :math:`L_{ii} = \tfrac12\lambda_i^{-1/2}`, where :math:`K_{ij}\approx 1/(\lambda_i-\lambda_j)` is

    - ``original``: that quotient itself. Pairs of equal eigenvalues give 0 in this and all following rules. (The
      released code gives an arbitrary large number, which the features, orthogonal to the null space, remove again.)
    - ``pade``: the [50/50] Padé approximant of the geometric series in the ratio of eigenvalues. It is
      :math:`1/(1-r)` itself, so this rule is ``original`` (the released coefficients agree to 8e-11).
    - ``taylor``: the series cut after degree 100.
    - ``trunc``: the quotient clipped to ±1e10.
    - ``topn``: the quotient after the 50 smallest eigenvalues are set to 2.2e-16, in the forward pass as well.
    - ``power_iteration``: the series that 19 differentiated power iterations with deflation give, 19 terms.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        rule: one of the above.
        center: ``False`` takes the second moment instead of :func:`released_covariance`.

    Returns:
        ``(B, d, d)`` and the eigenvalues ``(B, d)``, both in float64 and differentiable.

    Raises:
        ValueError: unknown rule, with the nearest names.

    >>> import torch
    >>> x = torch.tensor([[[3.0, -3.0, 3.0, -3.0], [1.0, 1.0, -1.0, -1.0]]])
    >>> surrogate_sqrt(x, "taylor")[1]
    tensor([[1., 9.]], dtype=torch.float64)

    Source: Song et al., ICCV 2021; ``power_iteration``: Wang et al., NeurIPS 2019.
    """
    check_name("rule", rule, RULES)
    root, w = _Root.apply(as_matrix(x), rule, center)
    return root, w


def svd_sqrt(x: Tensor, backward: str = "pade", iterations: int = 3, center: bool = True) -> Tensor:
    """Accurate square root of the covariance with a choice of gradients.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        backward: a rule of :func:`surrogate_sqrt`; ``newton``: the same values with the gradient of ``iterations``
            Newton–Schulz steps; ``exact``: :func:`matrix_power`.
        iterations: steps of ``newton``, 3 as in the released code.
        center: ``False`` takes the second moment instead of the covariance.

    Returns:
        ``(B, d, d)`` in the dtype of ``x``.

    Raises:
        ValueError: unknown ``backward``, with the nearest names.

    >>> import torch
    >>> x = torch.tensor([[[3.0, -3.0, 3.0, -3.0], [1.0, 1.0, -1.0, -1.0]]])
    >>> svd_sqrt(x, "newton")
    tensor([[[3., 0.],
             [0., 1.]]])

    Source: Song et al., ICCV 2021.
    """
    check_name("backward rule", backward, BACKWARDS)
    if backward == "exact":
        return matrix_power(x, 0.5, center=center)
    if backward == "newton":
        smooth = newton_schulz_sqrt(x.double(), iterations, center)
        root = smooth + (surrogate_sqrt(x.detach(), center=center)[0] - smooth).detach()
    else:
        root, _ = surrogate_sqrt(x, backward, center)
    return root.to(x.dtype)

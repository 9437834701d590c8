"""All square roots of a covariance, by name."""

from __future__ import annotations

from torch import Tensor

from gcpzoo.functional.checks import check_name
from gcpzoo.functional.lyapunov import lyapunov_sqrt
from gcpzoo.functional.minimax import minimax_sqrt
from gcpzoo.functional.newton_schulz import newton_schulz_sqrt
from gcpzoo.functional.spectral import matrix_power
from gcpzoo.functional.surrogates import BACKWARDS, svd_sqrt

SVD_ROOTS = tuple(f"svd_{name}" for name in BACKWARDS if name != "exact")
ROOTS = ("isqrt", "exact", "minimax", "mpa_lya", "mtp_lya", *SVD_ROOTS)


def square_root(x: Tensor, root: str = "isqrt", iterations: int = 5, center: bool = True, steps: int = 4) -> Tensor:
    """Square root of the covariance of ``x`` by any of the methods.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        root: ``isqrt`` (:func:`newton_schulz_sqrt`), ``exact`` (:func:`matrix_power`), ``minimax``
            (:func:`minimax_sqrt`), ``mpa_lya``, ``mtp_lya`` (:func:`lyapunov_sqrt`), or ``svd_`` and a backward rule of
            :func:`svd_sqrt`.
        iterations: Newton–Schulz steps of ``isqrt`` and of the gradient of ``svd_newton``.
        center: ``False`` takes the root of the second moment instead of the covariance.
        steps: polynomials of ``minimax``.

    Returns:
        ``(B, d, d)`` in the dtype of ``x``.

    Raises:
        ValueError: unknown root, with the nearest names.

    >>> import torch
    >>> x = torch.tensor([[[3.0, -3.0, 3.0, -3.0], [1.0, 1.0, -1.0, -1.0]]])
    >>> square_root(x, "exact").round(decimals=4)
    tensor([[[3., 0.],
             [0., 1.]]])
    """
    check_name("root", root, ROOTS)
    if root == "isqrt":
        return newton_schulz_sqrt(x, iterations, center)
    if root == "exact":
        return matrix_power(x, 0.5, center=center)
    if root == "minimax":
        return minimax_sqrt(x, steps, center)
    if root in SVD_ROOTS:
        return svd_sqrt(x, root.removeprefix("svd_"), iterations, center)
    return lyapunov_sqrt(x, root == "mtp_lya", center)

r"""The smaller side of the data matrix: d×d or M×M, chosen by shape for every symmetric function of the covariance.

With :math:`\Sigma = YY^\top/M` and :math:`G = Y^\top Y/M`, a function :math:`\phi(\lambda) = \lambda g(\lambda)` obeys
:math:`\phi(\Sigma) = Y g(G) Y^\top/M`, in value and gradient. Both matrices have the same non-zero eigenvalues,
hence the same trace and Frobenius norm.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gcpzoo.functional.covariance import as_matrix, centered

BLOCK = 64

MatrixMap = Callable[[Tensor], Tensor]


def few_positions(x: Tensor) -> bool:
    """Decide the side for features ``(B, d, M)``: ``True`` is M×M, the positions', where M < d; ``False`` is d×d.

    >>> import torch
    >>> few_positions(torch.ones(1, 256, 49)), few_positions(torch.ones(1, 49, 49))
    (True, False)
    """
    return x.shape[2] < x.shape[1]


def side(x: Tensor) -> int:
    """Rows of the smaller matrix, min(d, M).

    >>> import torch
    >>> side(torch.ones(1, 256, 49))
    49
    """
    return x.shape[2] if few_positions(x) else x.shape[1]


def features(x: Tensor, center: bool = True) -> Tensor:
    """Y ``(B, d, M)`` whose YYᵀ/M is the covariance, or without ``center`` the second moment.

    >>> import torch
    >>> features(torch.tensor([[[[1.0, 3.0]]]]))
    tensor([[[-1.,  1.]]])
    """
    x = as_matrix(x)
    return centered(x) if center else x


def symmetric_product(a: Tensor, b: Tensor, c: Tensor | None = None, d: Tensor | None = None) -> Tensor:
    """AB, or AB - CD/2, where that is known to be symmetric.

    On a CPU it computes blocks of the upper triangle and mirrors them: for 256 rows 0.73 of the time of the whole
    product; for 128 rows on two threads it would take longer. Elsewhere, and while gradients are recorded, it is the
    plain product, because autograd cannot follow writes into blocks.

    Args:
        a, b, c, d: ``(B, n, n)``, or ``(B, n, m)`` and ``(B, m, n)``.

    Returns:
        ``(B, n, n)``.

    >>> import torch
    >>> a = torch.eye(2)[None]
    >>> symmetric_product(a, 3 * a, a, 4 * a)
    tensor([[[1., 0.],
             [0., 1.]]])
    """
    n = a.shape[1]
    plain = torch.compiler.is_compiling() or torch.is_grad_enabled() or a.device.type != "cpu"
    if plain or n < (2 if torch.get_num_threads() == 1 else 3) * BLOCK:
        out = a @ b
        return out if c is None or d is None else torch.baddbmm(out, c, d, alpha=-0.5)
    out = a.new_empty(a.shape[0], n, n)
    for start in range(0, n, BLOCK):
        rows = slice(start, start + BLOCK)
        block = out[:, rows, start:]
        torch.bmm(a[:, rows], b[:, :, start:], out=block)
        if c is not None and d is not None:
            block.baddbmm_(c[:, rows], d[:, :, start:], alpha=-0.5)
        out[:, rows, :start] = out[:, :start, rows].mT
    return out


def gram(y: Tensor) -> tuple[Tensor, bool]:
    """The smaller of YYᵀ/M ``(B, d, d)`` and YᵀY/M ``(B, M, M)``, and whether it is the latter.

    >>> import torch
    >>> gram(torch.ones(1, 3, 2))
    (tensor([[[1.5000, 1.5000],
             [1.5000, 1.5000]]]), True)
    """
    small = few_positions(y)
    return (symmetric_product(y.mT, y) if small else symmetric_product(y, y.mT)) / y.shape[2], small


def symmetric_function(x: Tensor, value: MatrixMap, divided: MatrixMap, center: bool = True) -> Tensor:
    r"""A symmetric function :math:`\phi(\Sigma)` with :math:`\phi(0) = 0`, evaluated on the smaller side.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        value: :math:`\phi`, from ``(B, d, d)`` to ``(B, d, d)``; used where d ≤ M.
        divided: :math:`g(\lambda) = \phi(\lambda)/\lambda`, from ``(B, M, M)`` to ``(B, M, M)``; used where M < d. Both
            may divide by their argument's trace or Frobenius norm, which the two sides share.
        center: ``False`` takes the second moment instead of the covariance.

    Returns:
        ``(B, d, d)``, differentiable by ordinary autograd.

    >>> import torch
    >>> x = torch.tensor([[[2.0, -2.0], [0.0, 0.0], [0.0, 0.0]]])
    >>> symmetric_function(x, value=lambda a: a @ a, divided=lambda a: a)[0, 0]
    tensor([16.,  0.,  0.])
    """
    y = features(x, center)
    a, small = gram(y)
    return y @ (divided(a) / y.shape[2]) @ y.mT if small else value(a)

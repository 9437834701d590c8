"""LAPACK's factorizations of a batch of small matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from gcpzoo.functional.threads import factorize_batch


def eigh(a: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of symmetric matrices. Not for autograd.

    Args:
        a: ``(B, n, n)``, symmetric, positive semi-definite.

    Returns:
        ``(B, n)`` and ``(B, n, n)``; for a sample that is not finite NaN eigenvalues and finite eigenvectors.

    >>> import torch
    >>> w, v = eigh(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
    >>> w
    tensor([[1., 2.]])
    """
    finite = a.diagonal(dim1=1, dim2=2).sum(1).isfinite()
    w, v = factorize_batch(lambda a: tuple(torch.linalg.eigh(a)), torch.where(finite[:, None, None], a, 0))
    return torch.where(finite[:, None], w, torch.nan), v


def qr(a: Tensor) -> tuple[Tensor, Tensor]:
    """QR factors of matrices. Not for autograd.

    Args:
        a: ``(B, n, m)``.

    Returns:
        Q ``(B, n, k)`` with orthonormal columns and R ``(B, k, m)``, upper triangular, k = min(n, m).

    >>> import torch
    >>> q, r = qr(torch.ones(1, 4, 2))
    >>> q.shape, r.shape
    (torch.Size([1, 4, 2]), torch.Size([1, 2, 2]))
    """
    return factorize_batch(lambda a: tuple(torch.linalg.qr(a)), a)

"""The log-Cholesky chart of covariances."""

from __future__ import annotations

import torch
from torch import Tensor

from gcpzoo.functional.checks import check_positive
from gcpzoo.functional.covariance import as_matrix, covariance
from gcpzoo.functional.released import released_covariance


def log_cholesky(x: Tensor, eps: float = 1e-6) -> Tensor:
    r"""Log-Cholesky coordinates of the covariance of ``x``, symmetrized.

    .. math:: LL^\top = \Sigma + \epsilon I,\qquad K = \lfloor L\rfloor + \log\operatorname{diag}L,\qquad K + K^\top

    with :math:`\lfloor L\rfloor` the strictly lower part. The diagonal of the result is twice the logarithm.

    The covariance is :func:`released_covariance`. Where that plus ε is not positive definite (at 14×14 positions a mean
    of norm 5 suffices, and the released code stops), the sample takes :func:`covariance`, with ε raised to at least
    d·2.2e-16·tr Σ, which large features need.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        eps: ε > 0.

    Returns:
        ``(B, d, d)`` in the dtype of ``x``, computed in float64; NaN for a sample that is not finite.

    Raises:
        ValueError: ``eps`` is not positive.

    >>> import torch
    >>> x = torch.tensor([[[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]]])  # covariance: the identity
    >>> log_cholesky(x, eps=3.0)  # 2 log 2 on the diagonal
    tensor([[[1.3863, 0.0000],
             [0.0000, 1.3863]]])

    Source: Chen et al., "Understanding Matrix Function Normalizations in Covariance Pooling through the Lens of
    Riemannian Geometry", ICLR 2025; the chart: Lin, SIAM J. Matrix Anal. Appl. 2019.
    """
    check_positive("eps", eps)
    sigma, released = covariance(as_matrix(x).double()), released_covariance(x)
    d = sigma.shape[1]
    eye = torch.eye(d, dtype=sigma.dtype, device=sigma.device)
    trace = sigma.detach().diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    finite = trace.isfinite()
    failed = torch.linalg.cholesky_ex(released.detach() + eps * eye).info[:, None, None] != 0
    safe = sigma + (d * torch.finfo(sigma.dtype).eps * trace).clamp_min(eps) * eye
    lower = torch.linalg.cholesky(torch.where(finite, torch.where(failed, safe, released + eps * eye), eye))
    chart = lower.tril(-1) + torch.diag_embed(lower.diagonal(dim1=1, dim2=2).log())
    return torch.where(finite, chart + chart.mT, torch.nan).to(x.dtype)

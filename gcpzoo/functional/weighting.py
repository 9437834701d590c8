"""Positions that count more or less, and masked ones."""

from __future__ import annotations

import torch
from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.functional.covariance import as_matrix
from gcpzoo.functional.tracing import is_traced


def check_weights(x: Tensor, weights: Tensor) -> None:
    """Require weights of the positions of features ``(B, d, M)``, as :func:`reweight` takes them.

    Raises:
        ZooError: another shape than ``(B, M)``, a negative or not finite weight, or a sample without a positive one.

    >>> import torch
    >>> check_weights(torch.ones(2, 8, 5), torch.ones(2, 5))
    >>> check_weights(torch.ones(2, 8, 5), torch.ones(2, 4))
    Traceback (most recent call last):
    ...
    gcpzoo.errors.ZooError: weights must be (B, M) = (2, 5), one for each position, got shape (2, 4)
    """
    check_number(weights, x.shape[0], x.shape[2])
    if not is_traced(weights):
        w = weights.to(torch.promote_types(x.dtype, torch.float32))
        if not bool((w.isfinite() & (w >= 0)).all()):
            raise ZooError("weights must be finite and at least 0, got a negative one, an infinite one or NaN")
        if not bool((w > 0).any(1).all()):
            raise ZooError("weights must leave each sample at least one position, got a sample whose weights are all 0")


def check_number(weights: Tensor, samples: int, positions: int) -> None:
    """Require one weight for each position of each sample.

    Raises:
        ZooError: for another shape.

    >>> import torch
    >>> check_number(torch.ones(2, 4), samples=2, positions=4)
    """
    if weights.shape != (samples, positions):
        expected = f"(B, M) = {(samples, positions)}, one for each position"
        raise ZooError(f"weights must be {expected}, got shape {tuple(weights.shape)}")


def reweight(x: Tensor, weights: Tensor, center: bool = True) -> Tensor:
    r"""Features whose plain mean and covariance are the weighted ones of ``x``.

    .. math:: \mu = \sum_p w_p x_p,\qquad \Sigma = \sum_p w_p(x_p - \mu)(x_p - \mu)^\top,\qquad \sum_p w_p = 1

    With :math:`s = \sqrt w`, :math:`e = \mathbf 1/\sqrt M` and
    :math:`Z = \sqrt M(X - \mu\mathbf 1^\top)\operatorname{diag}(s)` the reflection that takes :math:`e` to :math:`-s`
    leaves :math:`ZZ^\top` as it is and takes the mean away:

    .. math:: X' = \mu\mathbf 1^\top + Z - \frac{Ze\,(e + s)^\top}{1 + e^\top s}

    Whatever depends on mean and covariance alone is then the weighted one, without a change to its formula. The
    positions of ``X'`` are mixtures of those of ``x``. Without ``center`` it is
    :math:`\sqrt M X\operatorname{diag}(s)`, which has the weighted second moment alone, but mixes no positions: a zero
    stays a zero.

    Args:
        x: ``(B, d, M)`` or ``(B, d, H, W)``.
        weights: ``(B, M)``, at least 0, not all 0 in a sample; they are divided by their sum. A position of weight 0
            is left out, whatever its features are, NaN too, and its weight gets no gradient.
        center: keep the mean and the covariance; ``False`` keeps the second moment only.

    Returns:
        ``(B, d, M)`` in the dtype of ``x``.

    Raises:
        ZooError: another shape, a negative or not finite weight, or a sample without a positive one.

    >>> import torch
    >>> x = torch.tensor([[[1.0, 3.0, 100.0]]])
    >>> y = reweight(x, torch.tensor([[1.0, 1.0, 0.0]]))
    >>> y.mean().round(decimals=4), y.var(correction=0).round(decimals=4)
    (tensor(2.), tensor(1.))
    """
    x = as_matrix(x)
    check_weights(x, weights)
    m = x.shape[2]
    w = weights.to(torch.promote_types(x.dtype, torch.float32))[:, None]
    kept = w > 0
    y = torch.where(kept, x, 0).to(w.dtype)
    w = torch.where(kept, w, 0)
    w = w / w.sum(2, keepdim=True)
    s = torch.where(kept, w, 1).sqrt() * kept  # the gradient of a root is infinite at 0
    scaled: Tensor = y * s * m**0.5
    if not center:
        return scaled.to(x.dtype)
    mean = (y * w).sum(2, keepdim=True)
    z = (y - mean) * s * m**0.5
    e = m**-0.5
    out: Tensor = mean + z - z.sum(2, keepdim=True) * e * (e + s) / (1 + s.sum(2, keepdim=True) * e)
    return out.to(x.dtype)

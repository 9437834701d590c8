"""The heads as a textbook writes them: the d×d covariance, the formula, autograd. What gcpzoo is measured against."""

from __future__ import annotations

import torch
from torch import Tensor


def covariance(x: Tensor) -> Tensor:
    x = x - x.mean(2, keepdim=True)
    return x @ x.mT / x.shape[2]


def triangle(a: Tensor) -> Tensor:
    i, j = torch.triu_indices(a.shape[1], a.shape[1], device=a.device)
    return a.flatten(1)[:, i * a.shape[1] + j]


def isqrt(x: Tensor, iterations: int = 5) -> Tensor:
    """Coupled Newton–Schulz: 12 products d×d forward and 24 backward at 5 iterations (the last Z is not computed)."""
    sigma = covariance(x)
    trace = sigma.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    y = sigma / trace
    eye = torch.eye(y.shape[1], device=y.device)
    t = (3 * eye - y) / 2
    y, z = y @ t, t
    for step in range(1, iterations):
        t = (3 * eye - z @ y) / 2
        y = y @ t
        if step < iterations - 1:
            z = t @ z
    return triangle(y * trace.sqrt())


def mpn_cov(x: Tensor) -> Tensor:
    """Square root by float64 ``eigh``; the floor keeps the root's derivative finite in the null space."""
    w, u = torch.linalg.eigh(covariance(x.double()))
    return triangle((u * w.clamp_min(1e-12).sqrt()[:, None]) @ u.mT).float()

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


def bdc(x: Tensor, temperature: Tensor) -> Tensor:
    """Distances from the Gram matrix, and the means of rows and columns as products with a matrix of ones."""
    d = x.shape[1]
    gram = x @ x.mT
    square = gram.diagonal(dim1=1, dim2=2)
    e = ((square[:, :, None] + square[:, None] - 2 * gram).clamp_min(0) * temperature.exp() + 1e-5).sqrt()
    ones = torch.ones_like(e)
    return triangle(e - e @ ones / d - ones @ e / d + ones @ e @ ones / d**2)


def inverse(a: Tensor, steps: int = 7) -> Tensor:
    """Square of the inverse root by coupled Newton–Schulz (the last Y is not computed)."""
    d = a.shape[1]
    eye = torch.eye(d, device=a.device)
    a = a + 1e-10 + 1e-9 * torch.diag(torch.rand(d, device=a.device))
    trace = a.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    y = a / trace
    t = (3 * eye - y) / 2
    y, z = y @ t, t
    for step in range(1, steps):
        t = (3 * eye - z @ y) / 2
        if step < steps - 1:
            y = y @ t
        z = t @ z
    root = z / trace.sqrt()
    return root @ root


def isice(x: Tensor, steps: int = 5, sparsity: float = 0.01, rate: float = 1.0) -> Tensor:
    """The published algorithm, line by line: one inverse at the start and one in each step."""
    c = covariance(x)
    c = c / c.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    p = inverse(c)
    for i in range(steps):
        g = c - inverse(p)
        length = rate * (1 - i / (steps - 1))
        plus = (p.relu() - length * (g + sparsity)).relu()
        minus = ((-p).relu() - length * (sparsity - g)).relu()
        p = plus - minus
        p = (p + p.mT) / 2
    return triangle(p / p.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].sqrt())

"""Power normalizations: functions of the second moment's entries, or of its eigenvalues, that level large ones."""

from __future__ import annotations

import torch
from torch import Tensor

from gcpzoo.functional.checks import check_count
from gcpzoo.functional.covariance import as_matrix, covariance, unit_scale
from gcpzoo.functional.newton_schulz import trace_or_one
from gcpzoo.functional.small_side import symmetric_function
from gcpzoo.limits import ITERATIONS

FLOOR = 1e-6
"""Added to the trace of the second moment, and to the entries that Gamma takes a power of."""


def shares(x: Tensor, floor: float = FLOOR) -> Tensor:
    r"""Second moment divided by its trace, :math:`p = S/(\operatorname{tr}S + \epsilon)` with :math:`S = XX^\top/M`.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``, not centered.
        floor: :math:`\epsilon`; 0 as in SigmE's released code gives zeros where the trace is 0.

    Returns:
        ``(B, d, d)``, entries in [-1, 1], in [0, 1] for features that are not negative.

    >>> import torch
    >>> shares(torch.tensor([[[1.0, 1.0], [1.0, 1.0]]]), floor=0)
    tensor([[[0.5000, 0.5000],
             [0.5000, 0.5000]]])
    """
    x = as_matrix(x)
    s = covariance(x if floor else unit_scale(x), center=False)
    return s / (trace_or_one(s) + floor)


def sigme(p: Tensor, eta: float = 100.0) -> Tensor:
    r"""SigmE, element-wise :math:`2/(1 + e^{-\eta p}) - 1 = \tanh(\eta p/2)`.

    >>> import torch
    >>> sigme(torch.tensor([0.0, 0.01]))
    tensor([0.0000, 0.4621])

    Source: Koniusz and Zhang, "Power Normalizations in Fine-grained Image, Few-shot Image and Graph Classification",
    TPAMI 2022.
    """
    return torch.tanh(0.5 * eta * p)


def maxexp(p: Tensor, eta: float = 20.0) -> Tensor:
    r"""MaxExp, element-wise :math:`1 - (1 - p)^\eta`.

    Negative entries, for which it is not made, give :math:`-(1 - (1 - |p|)^\eta)`. An entry of exactly 0 passes no
    gradient on, nor would a ReLU before the second moment.

    >>> import torch
    >>> maxexp(torch.tensor([0.0, 0.5, -0.5]), eta=2)
    tensor([ 0.0000,  0.7500, -0.7500])

    Source: as :func:`sigme`.
    """
    below_one = p.abs().clamp_max(1 - torch.finfo(p.dtype).eps)  # where the logarithm is finite
    return -p.sign() * torch.expm1(eta * torch.log1p(-below_one))


def gamma(p: Tensor, power: float = 0.5) -> Tensor:
    r"""Gamma, element-wise :math:`(p + 10^{-6})^\gamma`; negative entries keep their sign.

    >>> import torch
    >>> gamma(torch.tensor([0.25, -0.25])).round(decimals=3)
    tensor([ 0.5000, -0.5000])

    Source: as :func:`sigme`.
    """
    sign = torch.where(p < 0, -1, 1)
    return sign * (p * sign + FLOOR) ** power


def asinhe(p: Tensor, scale: float = 500.0) -> Tensor:
    r"""AsinhE, element-wise :math:`\operatorname{asinh}(\gamma'p)`.

    >>> import torch
    >>> asinhe(torch.tensor([0.0, 0.01]))
    tensor([0.0000, 2.3124])

    Source: as :func:`sigme`.
    """
    return torch.asinh(scale * p)


def _geometric_sum(q: Tensor, n: int) -> Tensor:
    """I + Q + … + Qⁿ⁻¹ by doubling, S(2k) = S(k) + QᵏS(k), first digit of n first."""
    total, power = torch.eye(q.shape[1], dtype=q.dtype, device=q.device).expand_as(q), q
    for k, digit in enumerate(bin(n)[3:], 1):
        total, power = total + (power if k == 1 else power @ total), power @ power
        if digit == "1":
            total, power = total + power, power @ q
    return total


def maxexp_f(x: Tensor, eta: int = 20) -> Tensor:
    r"""Spectral MaxExp, :math:`I - (I - p)^\eta` of the second moment divided by its trace, by repeated squaring.

    It is evaluated as :math:`p\sum_{k<\eta}(I - p)^k`, where no digits cancel, on the smaller side of the features.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``, not centered.
        eta: :math:`\eta`, a whole number.

    Returns:
        ``(B, d, d)``, without an eigendecomposition.

    >>> import torch
    >>> maxexp_f(torch.tensor([[[1.0, 1.0], [1.0, -1.0]]]), eta=2).round(decimals=3)
    tensor([[[0.7500, 0.0000],
             [0.0000, 0.7500]]])

    Source: as :func:`sigme`.
    """
    check_count("eta", eta, most=ITERATIONS)

    def divided(a: Tensor) -> Tensor:
        trace = trace_or_one(a) + FLOOR
        rest = torch.eye(a.shape[1], dtype=a.dtype, device=a.device) - a / trace
        return _geometric_sum(rest, eta) / trace

    return symmetric_function(x, lambda a: a @ divided(a), divided, center=False)

"""Spectra of the covariance that a head sees, and of the matrix that it makes of it, in float64."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from gcpzoo.functional import as_matrix
from gcpzoo.functional.covariance import centered
from gcpzoo.functional.small_side import few_positions
from gcpzoo.models.surgery import evaluating


@dataclass(frozen=True)
class SpectrumSummary:
    r"""How well-conditioned covariances are: medians over the matrices of a batch.

    Attributes:
        effective_rank: :math:`\exp(-\sum_i p_i\log p_i)` with :math:`p_i = \lambda_i/\sum_j\lambda_j` (Roy & Vetterli,
            EUSIPCO 2007).
        rank: number of eigenvalues above rounding, :math:`\lambda_i > \epsilon\max(d, M)\lambda_1` with float64's ε.
        condition: :math:`\lambda_1/\lambda_d`, of the whole covariance; infinite where the rank is below d.
        condition_nonzero: :math:`\lambda_1/\lambda_r` of its non-zero spectrum, r the rank.

    >>> SpectrumSummary(effective_rank=1.9, rank=2.0, condition=4.0, condition_nonzero=4.0).condition
    4.0
    """

    effective_rank: float
    rank: float
    condition: float
    condition_nonzero: float

    def to_dict(self) -> dict[str, float]:
        """Return plain values.

        >>> SpectrumSummary(2.0, 2.0, 1.0, 1.0).to_dict()["rank"]
        2.0
        """
        return asdict(self)


def covariance_eigenvalues(x: Tensor) -> Tensor:
    """Eigenvalues of the covariance of features, largest first, in float64.

    They are computed on the smaller side: with fewer positions than channels from the ``(M, M)`` Gram matrix, whose
    spectrum is the same but for zeros.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, h, w)``.

    Returns:
        ``(B, d)``, not negative.

    >>> covariance_eigenvalues(torch.tensor([[[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 3.0, -3.0]]]))
    tensor([[4.5000, 0.5000]], dtype=torch.float64)
    """
    x = centered(as_matrix(x).double())
    d, m = x.shape[1:]
    small = few_positions(x)
    values = torch.linalg.eigvalsh((x.mT @ x if small else x @ x.mT) / m).flip(1).clamp_min(0)
    return torch.cat([values, values.new_zeros(len(values), d - m)], 1) if small else values


@torch.no_grad()
def head_spectra(head: nn.Module, features: Tensor) -> dict[str, Tensor]:
    """Eigenvalues of what a head works on: one row for each image and group of channels, largest first, in float64.

    Args:
        head: a head of the zoo; with ``cov_groups`` each group's covariance counts by itself.
        features: the backbone's ``(B, C, h, w)``.

    Returns:
        ``covariance``: of the covariance after the reduction, ``(B·groups, d/groups)``; for heads that make a symmetric
        matrix of it also ``normalized``: the absolute eigenvalues of that matrix, which BDC's has of both signs.

    >>> from gcpzoo.heads import create_head
    >>> x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> spectra = head_spectra(create_head("mpn_cov", 8, cov_groups=2), x)
    >>> spectra["covariance"].shape
    torch.Size([4, 4])
    >>> torch.allclose(spectra["normalized"] ** 2, spectra["covariance"])
    True
    """
    twin: Any = copy.deepcopy(head).to("cpu", torch.float64).eval()
    x = as_matrix(twin.reduction(features.detach().to("cpu", torch.float64)))
    groups = getattr(twin, "cov_groups", 1)
    x = x.reshape(len(x) * groups, x.shape[1] // groups, x.shape[2])
    spectra = {"covariance": covariance_eigenvalues(x)}
    if hasattr(twin, "normalize"):
        a = twin.normalize(x)
        if a.ndim == 3 and a.shape[1] == a.shape[2] and torch.allclose(a, a.mT, atol=1e-4 * float(a.abs().max())):
            spectra["normalized"] = torch.linalg.eigvalsh(a).abs().sort(1, descending=True).values
    return spectra


def mean_relative(values: Tensor) -> list[float]:
    """Average spectra ``(n, d)`` after dividing each by its largest eigenvalue.

    >>> mean_relative(torch.tensor([[4.0, 2.0], [1.0, 0.0]]))
    [1.0, 0.25]
    """
    return (values / values[:, :1].clamp_min(torch.finfo(values.dtype).tiny)).mean(0).tolist()


def summarize(values: Tensor, positions: int) -> SpectrumSummary:
    """Summarize the eigenvalues ``(n, d)`` of covariances of ``positions`` positions, largest first.

    >>> summarize(torch.tensor([[4.0, 1.0, 0.0]], dtype=torch.float64), positions=3)
    SpectrumSummary(effective_rank=1.6493..., rank=2.0, condition=inf, condition_nonzero=4.0)
    """
    values = values.double()
    floor = torch.finfo(torch.float64).eps * max(values.shape[1], positions) * values[:, :1]
    rank = (values > floor).sum(1)
    p = values / values.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    entropy = -torch.special.xlogy(p, p).sum(1)
    last = values.gather(1, (rank - 1).clamp_min(0)[:, None])[:, 0]
    nonzero = torch.where(rank > 0, values[:, 0] / last, torch.nan)
    condition = torch.where(rank == values.shape[1], nonzero, math.inf)
    return SpectrumSummary(*(median(v.double().tolist()) for v in (entropy.exp(), rank, condition, nonzero)))


def pooled_features(model: Any, images: Tensor) -> Tensor:
    """Compute what a network's head reads: the backbone's features ``(B, C, h, w)`` without the class token.

    Args:
        model: a :class:`gcpzoo.models.GCPNet`.
        images: preprocessed images ``(B, 3, H, W)``; they take the dtype of the network.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "isqrt", 2, dim=8, until="layer1").eval()
    >>> pooled_features(model, torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 64, 8, 8])
    """
    features: Tensor = model.forward_features(images.to(next(model.parameters()).dtype))
    return features if model.fusion == "all" else features[:, :, model.backbone.num_prefix_tokens :]


@torch.no_grad()
def covariance_summary(model: Any, images: Tensor) -> SpectrumSummary:
    """Summarize the covariance that a network's head sees of a batch; the network's mode is left as it was.

    Args:
        model: a :class:`gcpzoo.models.GCPNet`.
        images: preprocessed images ``(B, 3, H, W)``, or views ``(B, V, 3, H, W)``.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "isqrt", 2, dim=8, until="layer1")
    >>> 1 <= covariance_summary(model, torch.rand(2, 3, 32, 32)).effective_rank <= 8
    True
    """
    x = images.flatten(0, 1) if images.ndim == 5 else images
    with evaluating(model):
        features = pooled_features(model, x)
    return summarize(head_spectra(model.head, features)["covariance"], positions=features.shape[2] * features.shape[3])

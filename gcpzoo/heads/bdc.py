"""Deep Brownian distance covariance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gcpzoo.functional import distance_covariance, reweight
from gcpzoo.functional.checks import check_count
from gcpzoo.heads.base import SecondOrderHead
from gcpzoo.heads.registry import register


@register("bdc")
class DistanceCovariance(SecondOrderHead):
    r"""DeepBDC: Brownian distance covariance of the channels, from their distances over the positions.

    .. math:: D_{ij} = \lVert x_i - x_j\rVert^2,\quad E = \sqrt{e^\tau D + 10^{-5}},\qquad
              \operatorname{tri}(PEP),\quad P = I - \mathbf 1\mathbf 1^\top/d

    Output size d(d+1)/2. The one parameter is :math:`\tau`, ``temperature`` of shape (1, 1).

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.
        positions: M of the maps in training, for the start :math:`\tau = \log\frac1{2M}`. 196 is the 14×14 of most of
            the zoo's networks at 224 px; 25 that of a ResNet-12 at 84 px. Other maps can be read: the parameter is
            learned.

    When to use: few-shot recognition, for which the paper proposes it, with ``dim=None`` where the backbone has few
    channels. There :math:`\tau` learns at 1e-3 while the rest has 5e-2: ``lr_factors: {head.temperature: 0.02}`` in the
    optimizer's settings. Its weight decay stays.

    Distances are sums over positions. Weights therefore count as they are, 1 for a position that counts once, and are
    not divided by their sum.

    Released code: drops the batch axis of a batch of one, and gives a channel the distance 3.2e-3 to itself, which is
    kept here.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> head = create_head("bdc", in_features=8, positions=49)
    >>> head(torch.ones(1, 8, 7, 7)).shape, head.temperature.exp().item()
    (torch.Size([1, 36]), 0.0102...)

    Source: Xie et al., "Joint Distribution Matters: Deep Brownian Distance Covariance for Few-Shot Classification",
    CVPR 2022, section 3.
    """

    centered: ClassVar[bool] = False

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {"temperature": "temperature"}

    def __init__(
        self, in_features: int, dim: int | Sequence[int] | None = None, positions: int = 196, **kwargs: Any
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        check_count("positions", positions)
        self.temperature = nn.Parameter(torch.full((1, 1), -math.log(2 * positions)))

    def normalize(self, x: Tensor) -> Tensor:
        return distance_covariance(x, self.temperature)

    def normalize_weighted(self, x: Tensor, weights: Tensor) -> Tensor:
        mean = reweight(x, weights, self.centered)  # its Gram matrix is M times the weighted mean
        return self.normalize(mean * (weights.to(x.dtype).mean(1).sqrt()[:, None, None]))

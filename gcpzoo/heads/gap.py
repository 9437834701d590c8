"""Global average pooling, the first-order control."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from gcpzoo.functional import reweight
from gcpzoo.heads.base import Head
from gcpzoo.heads.registry import register


@register("gap")
class GlobalAveragePooling(Head):
    r"""Global average pooling: the mean over positions, the first-order control of every comparison.

    .. math:: \tfrac1M\sum_p x_p

    Output size C, or ``dim``.

    Args:
        in_features: channels of the feature map.
        dim: channels after an optional reduction layer; ``None`` (usual): none.
        reduction: see :class:`~gcpzoo.heads.base.Reduction`.
        groups: groups of the reduction's convolutions.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> create_head("gap", in_features=1)(torch.tensor([[[[1.0, 3.0]]]]))
    tensor([[2.]])

    Source: Lin et al., "Network in Network", ICLR 2014, section 3.2.
    """

    second_order: ClassVar[bool] = False
    default_dim: ClassVar[int | None] = None

    def forward(self, x: Tensor, tokens: bool = False, weights: Tensor | None = None) -> Tensor:
        x = self.reduce(x, tokens, weights)
        return x.mean((2, 3)) if weights is None else reweight(x, weights).mean(2)

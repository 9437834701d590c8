"""DropCov."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gcpzoo.errors import ZooError
from gcpzoo.functional import adaptive_drop_rate, channel_importance, covariance, drop_channels
from gcpzoo.functional.checks import check_choice, check_count
from gcpzoo.heads.base import SecondOrderHead
from gcpzoo.heads.registry import register


@register("dropcov")
class DropCov(SecondOrderHead):
    r"""DropCov: the plain covariance; training drops channels before it at an adaptive rate.

    .. math:: y = \operatorname{softmax}(w * \bar x),\quad x \leftarrow \frac{x + x\cdot y}{1 + 1/d},\quad
              \rho = \operatorname{clamp}\Bigl(1 - \tfrac{10}{\log_2 d}\,\overline{\cos(y,\Sigma\mathbf 1)}, 0, 1\Bigr),
              \quad \operatorname{tri}\bigl(\Sigma(\mathrm{dropout}_\rho(x))\bigr)

    In evaluation :math:`\operatorname{tri}\Sigma` alone. Output size d(d+1)/2.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`; at least two channels.
        kernel_size: taps of the convolution over channels, odd.
        parity: ``"released"`` omits the division by 1 + 1/d in training.

    When to use: the cheapest second-order head at inference, no root at all. The rate is an average over the batch and
    over all processes.

    Released code: weights the features by 1 + y in training only, which makes them larger than in evaluation by 1 + 1/d
    on average. Here they are divided by that mean.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> head = create_head("dropcov", in_features=2).eval()
    >>> head(torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]]))
    tensor([[1., 0., 0.]])

    Source: Wang et al., "DropCov: A Simple yet Effective Method for Improving Deep Architectures", NeurIPS 2022.
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {"eca_layer.conv": "conv"}

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        kernel_size: int = 3,
        parity: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        if self.group_dim < 2:
            raise ZooError(f"dropcov needs at least two channels in a covariance, got {self.group_dim}")
        check_count("kernel_size", kernel_size)
        if kernel_size % 2 == 0:
            raise ZooError(f"kernel_size must be odd, got {kernel_size}")
        check_choice("parity", parity, (None, "released"))
        self.parity = parity
        with torch.random.fork_rng(devices=[]):
            self.conv = nn.Conv1d(1, 1, kernel_size, bias=False)

    def normalize(self, x: Tensor) -> Tensor:
        if self.training:
            importance = channel_importance(x, self.conv.weight.to(x.dtype))
            x = x + x * importance[:, :, None]
            rate = adaptive_drop_rate(x, importance)
            if self.parity is None:
                x = x / (1 + 1 / x.shape[1])
            x = drop_channels(x, rate)
        return covariance(x)

"""The adaptive drop rate of DropCov."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from gcpzoo.functional.covariance import as_matrix, centered


def channel_importance(x: Tensor, weight: Tensor) -> Tensor:
    r"""Importance of each channel: softmax over channels of a 1-d convolution of the channel means.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        weight: kernel ``(1, 1, k)``, k odd.

    Returns:
        ``(B, d)``, non-negative, sum 1.

    >>> import torch
    >>> x = torch.tensor([0.0, 1.0, 0.0])[None, :, None]
    >>> channel_importance(x, torch.tensor([[[0.0, 1.0, 0.0]]]))
    tensor([[0.2119, 0.5761, 0.2119]])

    Source: Wang et al., NeurIPS 2022.
    """
    return F.conv1d(as_matrix(x).mean(2)[:, None], weight, padding=weight.shape[2] // 2)[:, 0].softmax(1)


def adaptive_drop_rate(x: Tensor, importance: Tensor) -> Tensor:
    r"""Rate at which DropCov drops channels of the features ``x``.

    .. math:: \rho = \operatorname{clamp}\Bigl(1 - \frac{10}{\log_2 d}\,\overline{\cos(y, c)},\,0,\,1\Bigr),
              \qquad c_i = \sum_j\Sigma_{ij}

    The cosine is averaged over the batch, and over all processes when ``torch.distributed`` runs, so that every rank
    drops at the same rate. There is no gradient.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``, d > 1; DropCov passes the weighted ones, :math:`x + x\cdot y`.
        importance: y, ``(B, d)``, see :func:`channel_importance`.

    Returns:
        ρ, a scalar tensor.

    Raises:
        ValueError: if ``x`` has fewer than two channels.

    >>> import torch
    >>> x = torch.tensor([[[1.0, -1.0], [0.0, 0.0]]])
    >>> adaptive_drop_rate(x, importance=torch.tensor([[0.05, 0.95]]))
    tensor(0.4744)

    Source: Wang et al., NeurIPS 2022.
    """
    x = as_matrix(x.detach())
    if x.shape[1] < 2:
        raise ValueError(f"the drop rate needs two channels or more, got shape {tuple(x.shape)}")
    y = centered(x)
    rows = (y * y.sum(1, keepdim=True)).mean(2)  # Σ1, without Σ
    cosine = F.cosine_similarity(importance.detach(), rows, dim=1).mean()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(cosine)
        cosine = cosine / dist.get_world_size()
    return (1 - 10 / math.log2(x.shape[1]) * cosine).clamp(0, 1)


def drop_channels(x: Tensor, rate: Tensor) -> Tensor:
    """Set whole channels to zero with probability ``rate`` and scale the others by 1/(1-rate).

    Args:
        x: features ``(B, d, M)``.
        rate: scalar tensor in [0, 1].

    Returns:
        ``(B, d, M)``.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> drop_channels(torch.ones(1, 6, 1), torch.tensor(0.5)).flatten().unique()
    tensor([0., 2.])
    """
    keep = torch.bernoulli((1 - rate).expand(x.shape[0], x.shape[1], 1))
    return x * keep / (1 - rate).clamp_min(torch.finfo(x.dtype).eps)

"""Features whose second moment is the Gaussian embedding."""

from __future__ import annotations

import torch
from torch import Tensor

from gcpzoo.functional.covariance import as_matrix


def homogeneous(x: Tensor) -> Tensor:
    r"""Append a channel of ones; the second moment of the result embeds the Gaussian of the features.

    .. math:: \frac1M\sum_p\begin{pmatrix}x_p\\1\end{pmatrix}\begin{pmatrix}x_p\\1\end{pmatrix}^\top
              = \begin{pmatrix}\Sigma + \mu\mu^\top & \mu\\ \mu^\top & 1\end{pmatrix}

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.

    Returns:
        ``(B, d + 1, M)``.

    >>> import torch
    >>> homogeneous(torch.tensor([[[1.0, 3.0]]]))
    tensor([[[1., 3.],
             [1., 1.]]])

    Source: Wang et al., "G²DeNet: Global Gaussian Distribution Embedding Network and Its Application to Visual
    Recognition", CVPR 2017.
    """
    x = as_matrix(x)
    return torch.cat([x, x.new_ones(x.shape[0], 1, x.shape[2])], 1)

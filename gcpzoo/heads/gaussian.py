"""G²DeNet."""

from __future__ import annotations

from torch import Tensor

from gcpzoo.functional import homogeneous
from gcpzoo.heads.base import RootHead
from gcpzoo.heads.registry import register


@register("gaussian")
class GaussianEmbedding(RootHead):
    r"""Global Gaussian embedding (G²DeNet): the square root of one matrix that holds mean and covariance.

    .. math:: \operatorname{tri}\begin{pmatrix}\Sigma + \mu\mu^\top & \mu\\ \mu^\top & 1\end{pmatrix}^{1/2}

    Output size (d+1)(d+2)/2.

    Args:
        in_features, dim, root, iterations, kwargs: see :class:`~gcpzoo.heads.base.RootHead`; ``root="exact"`` as in the
            CVPR 2017 paper, ``"isqrt"`` (default) as in its fast version.

    When to use: where the mean carries information too; costs d + 1 instead of d.

    Released code: not used.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> x = torch.tensor([[[[2.0, -2.0]]]])  # mean 0, variance 4
    >>> create_head("gaussian", in_features=1, root="exact")(x).round(decimals=4)
    tensor([[2., 0., 1.]])

    Source: Wang et al., "G²DeNet: Global Gaussian Distribution Embedding Network and Its Application to Visual
    Recognition", CVPR 2017.
    """

    def normalize(self, x: Tensor) -> Tensor:
        return self.square_root(homogeneous(x), center=False)

    def vector_size(self) -> int:
        return (self.group_dim + 1) * (self.group_dim + 2) // 2

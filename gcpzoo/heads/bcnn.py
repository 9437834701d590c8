"""Bilinear pooling (B-CNN)."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from gcpzoo.functional import covariance
from gcpzoo.heads.base import SecondOrderHead
from gcpzoo.heads.registry import register


def signed_sqrt(v: Tensor) -> Tensor:
    """Element-wise sign(v)·√(|v| + 1e-8), each row then divided by its ℓ2 norm.

    >>> import torch
    >>> signed_sqrt(torch.tensor([[9.0, -16.0]]))
    tensor([[ 0.6000, -0.8000]])
    """
    return F.normalize(v.sign() * (v.abs() + 1e-8).sqrt())


@register("bcnn")
class BilinearPooling(SecondOrderHead):
    r"""Bilinear pooling (B-CNN): the second moment, element-wise signed square root, ℓ2 norm.

    .. math:: v = \operatorname{vec}(XX^\top/M),\qquad z = \operatorname{sign}(v)\sqrt{|v| + 10^{-8}},
              \qquad z/\lVert z\rVert_2

    Output size d²: all entries of the matrix.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.

    When to use: the historical baseline of fine-grained recognition.

    Released code: no known error.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> create_head("bcnn", in_features=2)(torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]]))
    tensor([[0.5423, 0.4851, 0.4851, 0.4851]])

    Source: Lin et al., "Bilinear CNN Models for Fine-grained Visual Recognition", ICCV 2015, section 3.2.
    """

    centered: ClassVar[bool] = False

    def normalize(self, x: Tensor) -> Tensor:
        return covariance(x, center=False)

    def vectorize(self, a: Tensor) -> Tensor:
        return signed_sqrt(a.flatten(1))

    def vector_size(self) -> int:
        return self.group_dim**2

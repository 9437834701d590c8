"""Improved bilinear pooling."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from gcpzoo.heads.base import RootHead
from gcpzoo.heads.bcnn import signed_sqrt
from gcpzoo.heads.registry import register


@register("improved_bcnn")
class ImprovedBilinearPooling(RootHead):
    r"""Improved B-CNN: the matrix square root of the second moment, then the steps of bilinear pooling.

    .. math:: v = \operatorname{vec}\bigl((XX^\top/M)^{1/2}\bigr),\qquad
              z = \operatorname{sign}(v)\sqrt{|v| + 10^{-8}},\qquad z/\lVert z\rVert_2

    Output size d².

    Args:
        in_features, dim, root, iterations, kwargs: see :class:`~gcpzoo.heads.base.RootHead`; ``root`` is
            ``"exact"`` by default.

    When to use: to reproduce the paper; ``root="isqrt"`` for speed.

    Released code: not used.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> x = torch.tensor([[[[9.0, -9.0]], [[16.0, 16.0]]]])  # the root is diag(9, 16)
    >>> create_head("improved_bcnn", in_features=2)(x).round(decimals=3)
    tensor([[0.6000, 0.0000, 0.0000, 0.8000]])

    Source: Lin and Maji, "Improved Bilinear Pooling with CNNs", BMVC 2017.
    """

    centered: ClassVar[bool] = False
    default_root: ClassVar[str] = "exact"

    def normalize(self, x: Tensor) -> Tensor:
        return self.square_root(x, center=False)

    def vectorize(self, a: Tensor) -> Tensor:
        return signed_sqrt(a.flatten(1))

    def vector_size(self) -> int:
        return self.group_dim**2

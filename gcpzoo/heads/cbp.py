"""Compact bilinear pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from gcpzoo.functional import tensor_sketch
from gcpzoo.functional.checks import check_count
from gcpzoo.heads.base import SecondOrderHead
from gcpzoo.heads.bcnn import signed_sqrt
from gcpzoo.heads.registry import register


@register("cbp")
class CompactBilinearPooling(SecondOrderHead):
    r"""Compact bilinear pooling: a random sketch of the second moment, signed square root, ℓ2 norm.

    .. math:: v = \sum_p \mathrm{cs}_1(x_p) * \mathrm{cs}_2(x_p)\in\mathbb R^D,\qquad
              z = \operatorname{sign}(v)\sqrt{|v| + 10^{-8}},\qquad z/\lVert z\rVert_2

    with two count sketches :math:`\mathrm{cs}_k(x)_{h_k(i)} \mathrel{+}= s_k(i)x_i` and their circular convolution.
    Sketching the sum over positions once gives the same without FFT. Hashes and signs are the buffers ``hash1``,
    ``hash2``, ``sign1``, ``sign2``. Output size D.

    Args:
        in_features, dim, kwargs: see :class:`~gcpzoo.heads.base.SecondOrderHead`.
        sketch_dim: D, the size of the output.
        seed: of the private generator that draws hashes and signs; the global random state stays as it is.

    When to use: bilinear pooling of many channels with an output of a chosen size.

    Released code: reseeds the global random generator and leaves the hashes out of the state dict. Entries that no pair
    of channels hits carry rounding noise of the FFT, which the square root magnifies to 3e-4 of the output.

    >>> import torch
    >>> from gcpzoo.heads import create_head
    >>> create_head("cbp", in_features=8, sketch_dim=64)(torch.ones(2, 8, 7, 7)).shape
    torch.Size([2, 64])

    Source: Gao et al., "Compact Bilinear Pooling", CVPR 2016, algorithm 2.
    """

    centered: ClassVar[bool] = False

    hash1: Tensor
    hash2: Tensor
    sign1: Tensor
    sign2: Tensor

    def __init__(
        self,
        in_features: int,
        dim: int | Sequence[int] | None = None,
        sketch_dim: int = 8192,
        seed: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, dim, **kwargs)
        check_count("sketch_dim", sketch_dim)
        self.sketch_dim = sketch_dim
        generator = torch.Generator().manual_seed(seed)
        for k in (1, 2):
            self.register_buffer(f"hash{k}", torch.randint(sketch_dim, (self.group_dim,), generator=generator))
            sign = torch.randint(2, (self.group_dim,), generator=generator)
            self.register_buffer(f"sign{k}", 2.0 * sign - 1)

    def normalize(self, x: Tensor) -> Tensor:
        return tensor_sketch(x, self.hash1, self.hash2, self.sign1, self.sign2, self.sketch_dim)

    def vectorize(self, a: Tensor) -> Tensor:
        return signed_sqrt(a)

    def vector_size(self) -> int:
        return self.sketch_dim

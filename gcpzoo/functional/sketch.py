"""Compact bilinear pooling by count sketches."""

from __future__ import annotations

from torch import Tensor

from gcpzoo.functional.covariance import as_matrix


def tensor_sketch(x: Tensor, hash1: Tensor, hash2: Tensor, sign1: Tensor, sign2: Tensor, size: int) -> Tensor:
    r"""Tensor sketch of the second moment: the circular convolution of two count sketches, summed over positions.

    .. math:: v_k = \sum_{h_1(i) + h_2(j)\,\equiv\,k\ (D)} s_1(i)\,s_2(j)\,(XX^\top)_{ij}

    The matrix is summed over positions first and sketched once. That equals one convolution by FFT at every position,
    without its rounding: entries that no pair hits are exactly 0.

    Args:
        x: features ``(B, d, M)`` or ``(B, d, H, W)``.
        hash1, hash2: ``(d,)``, integers in [0, size).
        sign1, sign2: ``(d,)``, ±1.
        size: D.

    Returns:
        ``(B, size)`` in the dtype of ``x``.

    >>> import torch
    >>> x = torch.tensor([[[1.0], [2.0]]])
    >>> tensor_sketch(x, torch.tensor([0, 1]), torch.tensor([0, 2]), torch.tensor([1, -1]), torch.tensor([1, 1]), 4)
    tensor([[ 1., -2.,  2., -4.]])

    Source: Gao et al., "Compact Bilinear Pooling", CVPR 2016; Pham and Pagh, KDD 2013.
    """
    x = as_matrix(x)
    moment = (x * sign1[:, None].to(x.dtype)) @ (x * sign2[:, None].to(x.dtype)).mT
    index = (hash1[:, None] + hash2) % size
    return x.new_zeros(x.shape[0], size).index_add(1, index.flatten(), moment.flatten(1))

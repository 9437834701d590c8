"""Losses of a classification beside PyTorch's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gcpzoo.errors import ZooError


class BalancedCrossEntropy(nn.CrossEntropyLoss):
    r"""Cross-entropy in which every class weighs the same, however many images it has.

    .. math:: \ell = \frac1B \sum_i w_{y_i} \, \text{CE}_i, \qquad w_k = \frac{N}{K N_k}

    for K classes with :math:`N_k` of the N training images. The mean weight over the training images is 1, so learning
    rates keep their meaning, and the sum is divided by the number of images of the batch, not, as PyTorch does, by the
    sum of their weights: a batch without rare classes does not make up for them. Label smoothing spreads an image's own
    weight; PyTorch's would give a rare class its large weight in the smoothed part of every image, and at 100:1 call
    all images by its name.

    >>> loss = BalancedCrossEntropy()
    >>> loss.count([0, 0, 0, 1], classes=2)
    >>> loss.weight
    tensor([0.6667, 2.0000])
    >>> float(loss(torch.zeros(2, 2), torch.tensor([0, 1])))  # (0.6667 + 2) / 2 · ln 2
    0.924...
    """

    weight: Tensor | None

    def count_images(self, data: Any, classes: int) -> None:
        """Take the weights from the training images of a data module.

        Raises:
            ZooError: if the data module cannot list them.

        >>> BalancedCrossEntropy().count_images(None, classes=2)
        Traceback (most recent call last):
        gcpzoo.errors.ZooError: balanced needs a data module that lists its images by samples('train'), as the zoo's ...
        """
        if not hasattr(data, "samples"):
            raise ZooError("balanced needs a data module that lists its images by samples('train'), as the zoo's do")
        self.count([label for _, label in data.samples("train")], classes)

    def count(self, labels: Sequence[int], classes: int) -> None:
        """Take the weights from the labels of the training images; a class without images weighs nothing.

        >>> loss = BalancedCrossEntropy()
        >>> loss.count([0, 0], classes=2)
        >>> loss.weight
        tensor([1., 0.])
        """
        counts = torch.bincount(torch.as_tensor(labels), minlength=classes).float()
        known = counts > 0
        weight = torch.where(known, len(labels) / (known.sum() * counts.clamp_min(1)), 0.0)
        self.register_buffer("weight", weight, persistent=False)  # the data give it again

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits ``(B, K)`` and labels ``(B,)``, or shares of the classes ``(B, K)``."""
        assert self.weight is not None
        wide = torch.promote_types(logits.dtype, torch.float32)
        shares = target if target.is_floating_point() else nn.functional.one_hot(target, logits.shape[1])
        weighted = shares.to(wide) * self.weight.to(wide)
        spread = weighted.mean(1, keepdim=True)
        images = nn.functional.cross_entropy(
            logits.to(wide), weighted + self.label_smoothing * (spread - weighted), reduction="none"
        )
        return images.mean()

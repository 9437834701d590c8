"""Metrics that torchmetrics does not have in this form."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix


class MeanClassAccuracy(MulticlassConfusionMatrix):
    """Mean of the classes' accuracies (recall), over the classes that have images.

    torchmetrics' macro average counts a class without images as 0 as soon as one image is mistaken for it, which would
    punish the evaluation on a part of the classes.

    >>> import torch
    >>> metric = MeanClassAccuracy(num_classes=3)
    >>> metric.update(torch.tensor([0, 0, 2, 1]), torch.tensor([0, 0, 0, 1]))
    >>> round(float(metric.compute()), 4)
    0.8333
    """

    def compute(self) -> Tensor:
        counts = super().compute().float()  # MPS has no float64
        images = counts.sum(1)
        return (counts.diag() / images)[images > 0].mean()

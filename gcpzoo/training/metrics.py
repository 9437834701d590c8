"""Metrics that torchmetrics does not have in this form, and their sums in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.utilities.distributed import gather_all_tensors

States = dict[str, dict[str, Tensor]]


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


def gather_sums(metrics: Mapping[str, Metric]) -> States:
    """Collect what metrics have summed up so far: for each sum a row of every process.

    >>> from torchmetrics import SumMetric
    >>> metric = SumMetric()
    >>> metric.update(2.0)
    >>> gather_sums({"loss": metric})
    {'loss': {'sum_value': tensor([2.])}}
    """
    several = distributed.is_available() and distributed.is_initialized()

    def rows(value: Tensor) -> Tensor:
        return torch.stack(gather_all_tensors(value) if several else [value.clone()])

    return {
        name: {key: rows(torch.as_tensor(value)) for key, value in metric.metric_state.items()}
        for name, metric in metrics.items()
    }


def restore_sums(metrics: Mapping[str, Metric], states: States) -> None:
    """Let every process go on with its own sums; where their number has changed, the first one with those of all.

    >>> from torchmetrics import SumMetric
    >>> metric = SumMetric()
    >>> restore_sums({"loss": metric}, {"loss": {"sum_value": torch.tensor([2.0, 3.0])}})  # of two processes
    >>> metric.compute()
    tensor(5.)
    """
    several = distributed.is_available() and distributed.is_initialized()
    rank, processes = (distributed.get_rank(), distributed.get_world_size()) if several else (0, 1)
    for name, sums in states.items():
        for key, rows in sums.items():
            if len(rows) == processes:
                setattr(metrics[name], key, rows[rank].to(metrics[name].device))
            elif rank == 0:
                setattr(metrics[name], key, rows.sum(0).to(metrics[name].device))

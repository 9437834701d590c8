"""The metrics of an evaluation, those that torchmetrics does not have in this form, and sums in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed
from torch.nn.functional import one_hot
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score
from torchmetrics.utilities.distributed import gather_all_tensors

States = dict[str, dict[str, Tensor]]


def probabilities(logits: Tensor) -> Tensor:
    """Softmax in float32: in bfloat16 two logits can become one probability, and another class be the likeliest.

    >>> probabilities(torch.zeros(1, 2, dtype=torch.bfloat16))
    tensor([[0.5000, 0.5000]])
    """
    return logits.float().softmax(1)


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


class CalibrationError(Metric):
    r"""Expected calibration error: how far the confidence in the likeliest class is from the share that is right.

    .. math:: \text{ECE} = \sum_{m=1}^{15} \tfrac{|B_m|}{n} \, |\text{acc}(B_m) - \text{conf}(B_m)|

    over the images whose confidence is in :math:`B_m = (\tfrac{m-1}{15}, \tfrac{m}{15}]`. torchmetrics' own keeps the
    confidence of every image, puts those of exactly 1 into a bin of their own, takes logits between 0 and 1 for
    probabilities, and hides NaN.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. (3).

    >>> metric = CalibrationError()
    >>> metric.update(torch.tensor([[0.75, 0.25], [0.75, 0.25]]).log(), torch.tensor([0, 1]))
    >>> metric.compute()
    tensor(0.2500)
    """

    images: Tensor
    excess: Tensor

    def __init__(self, bins: int = 15) -> None:
        super().__init__()
        self.bins = bins
        self.add_state("images", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("excess", torch.zeros(bins), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        confidence, likeliest = probabilities(logits).max(1)
        place = ((confidence * self.bins).ceil().long() - 1).clamp(0, self.bins - 1)
        excess = self.excess.float()  # the trainer's precision bf16-true makes it bfloat16
        self.excess = excess.index_add(0, place, confidence - (likeliest == labels).float())
        self.images = self.images.float() + len(labels)

    def compute(self) -> Tensor:
        return self.excess.abs().sum() / self.images


class BrierScore(Metric):
    r"""Squared distance of the probabilities from the truth, :math:`\sum_k (p_k - [k = y])^2`; between 0 and 2.

    Source: Brier, "Verification of forecasts expressed in terms of probability", 1950.

    >>> metric = BrierScore()
    >>> metric.update(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([0]))
    >>> metric.compute()
    tensor(0.5000)
    """

    images: Tensor
    distance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("images", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("distance", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        p = probabilities(logits)
        self.distance = self.distance.float() + (p - one_hot(labels, p.shape[1])).square().sum()
        self.images = self.images.float() + len(labels)

    def compute(self) -> Tensor:
        return self.distance / self.images


def evaluation_metrics(num_classes: int, prefix: str = "") -> MetricCollection:
    """Collect the metrics of an evaluation: accuracies, macro F1, calibration error and Brier score.

    >>> sorted(evaluation_metrics(10, "test/"))
    ['test/brier', 'test/ece', 'test/f1', 'test/per_class', 'test/top1', 'test/top5']
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "top1": MulticlassAccuracy(num_classes, average="micro"),
        "top5": MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro"),
        "per_class": MeanClassAccuracy(num_classes),
        "f1": MulticlassF1Score(num_classes, average="macro"),
        "ece": CalibrationError(),
        "brier": BrierScore(),
    }
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)


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

"""Calibration error and Brier score: the papers' values, also where torchmetrics' own would not give them."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from gcpzoo.training.metrics import BrierScore, CalibrationError, evaluation_metrics


def answers(scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(400, 6, generator=generator)
    return logits, torch.multinomial((logits / 3).softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_calibration_error_is_that_of_torchmetrics_over_several_batches(scale: float) -> None:
    logits, labels = answers(scale)
    metric = CalibrationError()
    for part in range(0, 400, 150):
        metric.update(logits[part : part + 150], labels[part : part + 150])
    expected = multiclass_calibration_error(logits.softmax(1), labels, 6, n_bins=15)
    torch.testing.assert_close(metric.compute(), expected)


def test_a_confidence_of_exactly_1_is_in_the_last_bin() -> None:
    """The bin has three images: two are right of 2.95 expected, at confidences 1, 1 and 0.95."""
    logits = torch.tensor([[200.0, 0.0], [200.0, 0.0], [torch.logit(torch.tensor(0.95)).item(), 0.0]])
    metric = CalibrationError()
    metric.update(logits, torch.tensor([0, 1, 0]))
    assert float(metric.compute()) == pytest.approx(0.95 / 3, abs=1e-6)


def test_logits_between_0_and_1_are_not_taken_for_probabilities() -> None:
    metrics = evaluation_metrics(2)
    metrics.update(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    p = 1 / (1 + torch.tensor(-1.0).exp())
    values = metrics.compute()
    torch.testing.assert_close(values["ece"], 1 - p)
    torch.testing.assert_close(values["brier"], 2 * (1 - p) ** 2)


def test_values_that_are_not_finite_do_not_vanish() -> None:
    for metric in (CalibrationError(), BrierScore()):
        metric.update(torch.tensor([[1.0, 0.0], [torch.nan, 0.0]]), torch.tensor([0, 0]))
        assert metric.compute().isnan()


def test_the_brier_score_is_the_mean_squared_distance_from_the_truth() -> None:
    logits, labels = answers()
    metric = BrierScore()
    metric.update(logits, labels)
    truth = torch.eye(6)[labels]
    torch.testing.assert_close(metric.compute(), ((logits.softmax(1) - truth) ** 2).sum(1).mean())


def test_a_network_in_bfloat16_is_measured_in_float32() -> None:
    logits, labels = answers()
    metrics = evaluation_metrics(6).to(torch.bfloat16)
    wide = evaluation_metrics(6)
    for metric in (metrics, wide):
        metric.update(logits.bfloat16().float(), labels)
    for name in ("ece", "brier"):
        assert torch.equal(metrics.compute()[name], wide.compute()[name])

"""Calibration error; temperature scaling: the minimum of the likelihood, and where there is none."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_calibration_error

from gcpzoo.analysis import fit_temperature
from gcpzoo.analysis.calibration import calibration, calibration_error, reliability_bins
from gcpzoo.errors import ZooError


def overconfident(factor: float, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are ``factor`` times those by which the labels were drawn."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return factor * logits, labels


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_the_temperature_undoes_the_factor_and_lowers_the_loss_of_held_out_images(factor: float) -> None:
    temperature = fit_temperature(*overconfident(factor, 4000, seed=0))
    assert temperature == pytest.approx(factor, rel=0.06)
    logits, labels = overconfident(factor, 4000, seed=1)
    before, after = cross_entropy(logits, labels), cross_entropy(logits / temperature, labels)
    assert (after < before - 0.05) if factor != 1 else (after < before + 0.001)


def test_no_other_temperature_is_better_on_the_images_that_it_was_fitted_on() -> None:
    logits, labels = overconfident(3.0, 300, seed=0)
    logits = logits.double()
    temperature = fit_temperature(logits, labels)
    least = cross_entropy(logits / temperature, labels)
    for factor in (0.5, 0.99, 1.01, 2.0):
        assert cross_entropy(logits / (factor * temperature), labels) > least


def test_log_probabilities_have_the_temperature_of_their_logits() -> None:
    logits, labels = overconfident(3.0, 300, seed=0)
    assert fit_temperature(logits.log_softmax(1), labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-5)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[3.0, 0.0], [0.0, 1.0]], [0, 1], "needs images that are misclassified, but all 2 are right"),
        ([[3.0, 0.0], [0.0, 1.0]], [1, 0], "needs logits that are highest for the true classes, on average"),
        ([[torch.nan, 0.0]], [0], "needs images with finite logits"),
        ([], [], "needs images with finite logits, got none"),
    ],
)
def test_where_no_temperature_is_the_best_one_it_is_refused(logits: list, labels: list, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        fit_temperature(torch.tensor(logits).reshape(-1, 2), torch.tensor(labels, dtype=torch.int64))


def test_the_calibration_error_is_the_distance_of_share_and_confidence_weighted_by_images() -> None:
    found = reliability_bins([0.1, 0.2, 0.3, 0.95, 1.0], [0, 1, 0, 1, 1], bins=5)
    assert found == {1: (pytest.approx(0.15), 0.5, 2), 2: (0.3, 0.0, 1), 5: (pytest.approx(0.975), 1.0, 2)}
    assert calibration_error(found.values()) == pytest.approx((2 * 0.35 + 0.3 + 2 * 0.025) / 5)


def test_calibration_of_logits_agrees_with_torchmetrics() -> None:
    logits, labels = overconfident(3.0, 500, seed=0)
    found = calibration(logits, labels)
    expected = multiclass_calibration_error(logits.double().softmax(1), labels, num_classes=5, n_bins=15)
    assert found["ece"] == pytest.approx(float(expected), abs=1e-6)
    assert found["nll"] == pytest.approx(float(cross_entropy(logits.double(), labels)))
    cooled = calibration(logits, labels, temperature=3.0)
    assert cooled["accuracy"] == found["accuracy"]
    assert cooled["ece"] < found["ece"] / 2

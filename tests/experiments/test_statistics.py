"""Intervals: known values, what is paired with what, and what a bootstrap of images says."""

from __future__ import annotations

import numpy as np
import pytest

from gcpzoo.experiments.statistics import Estimate, bootstrap_images, epochs_to_reach, mean_interval, paired_difference


@pytest.mark.parametrize(
    ("values", "half"),
    [([1.0, 3.0], 12.7062), ([1.0, 2.0, 3.0], 2.48414), ([0.0, 1.0, 2.0, 3.0, 4.0], 1.96324)],  # tables of Student's t
)
def test_a_mean_has_students_interval(values: list[float], half: float) -> None:
    estimate = mean_interval(values)
    assert (estimate.mean, estimate.n) == (np.mean(values), len(values))
    assert estimate.high == pytest.approx(estimate.mean + half, abs=1e-4)
    assert estimate.low == pytest.approx(estimate.mean - half, abs=1e-4)


def test_the_interval_covers_the_true_mean_in_95_of_100_experiments() -> None:
    draws = np.random.default_rng(0).normal(5.0, 2.0, (2000, 3))
    covered = [e.low <= 5.0 <= e.high for e in map(mean_interval, draws.tolist())]  # type: ignore[operator]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_one_value_has_no_interval_and_none_is_refused() -> None:
    assert mean_interval([0.5]) == Estimate(0.5, None, None, 1)
    assert not mean_interval([0.5]).excludes_zero
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])


def test_differences_are_paired_by_seed() -> None:
    control = {0: 0.5, 1: 0.7, 2: 0.9, 9: 0.0}
    estimate = paired_difference({0: 0.51, 1: 0.71, 2: 0.91, 8: 1.0}, control)
    assert estimate is not None
    assert estimate.n == 3
    assert estimate.mean == pytest.approx(0.01)
    assert estimate.excludes_zero  # the seeds differ by far more than the heads
    assert paired_difference({3: 0.5}, control) is None


def test_the_bootstrap_agrees_with_resampling_every_image() -> None:
    random = np.random.default_rng(1)
    difference = random.choice([-1.0, 0.0, 1 / 3, 1.0], size=150, p=[0.1, 0.6, 0.1, 0.2])
    means = difference[random.integers(150, size=(20_000, 150))].mean(1)
    estimate = bootstrap_images(difference.tolist())
    assert estimate.mean == pytest.approx(difference.mean())
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.01)
    assert bootstrap_images(difference.tolist()) == estimate  # it is seeded


def test_more_images_prove_more() -> None:
    few, many = (bootstrap_images([1.0, 0.0, 0.0, 0.0, -1.0, 1.0] * n) for n in (10, 1000))
    assert few.mean == many.mean
    assert not few.excludes_zero
    assert many.excludes_zero


def test_a_goal_is_reached_at_the_first_epoch_that_has_it() -> None:
    assert epochs_to_reach([0.1, None, 0.5, 0.4, 0.9], 0.5) == 3
    assert epochs_to_reach([0.1, 0.2], 0.3) is None

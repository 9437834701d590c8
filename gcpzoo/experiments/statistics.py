"""What repeated trainings prove: means with intervals, paired differences, epochs to a goal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

LEVEL = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; without one where there is a single value.

    >>> str(Estimate(0.5, 0.4, 0.6, 3))
    '0.5 (0.4 to 0.6, n = 3)'
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        between = f"{self.low:g} to {self.high:g}, " if self.low is not None and self.high is not None else ""
        return f"{self.mean:g} ({between}n = {self.n})"

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def mean_interval(values: Sequence[float]) -> Estimate:
    r"""Estimate the mean of independent values, :math:`\bar x \pm t_{n-1}\, s/\sqrt n` with Student's t.

    With three values the half width is 2.5 standard deviations, with two 9: few seeds prove little.

    Args:
        values: at least one.

    Raises:
        ValueError: if there is none.

    >>> estimate = mean_interval([1.0, 2.0, 3.0])
    >>> estimate.mean, round(estimate.high, 3)
    (2.0, 4.484)
    >>> mean_interval([1.0])
    Estimate(mean=1.0, low=None, high=None, n=1)
    """
    x = np.asarray(values, float)
    if not len(x):
        raise ValueError("a mean needs at least one value, got none")
    mean = float(x.mean())
    if len(x) == 1:
        return Estimate(mean, None, None, 1)
    half = float(t.ppf((1 + LEVEL) / 2, len(x) - 1)) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return Estimate(mean, mean - half, mean + half, len(x))


def paired_difference(values: Mapping[int, float], control: Mapping[int, float]) -> Estimate | None:
    """Estimate the mean difference to the control over the seeds that both have; nothing where they share none.

    >>> paired_difference({0: 0.9, 1: 0.8, 2: 0.5}, {0: 0.8, 1: 0.7}).mean
    0.1...
    """
    common = sorted(values.keys() & control.keys())
    return mean_interval([values[s] - control[s] for s in common]) if common else None


def bootstrap_images(difference: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Estimate a mean over test images by the percentiles of bootstrap samples of the images.

    It says how the figure would vary with other test images for these very networks; not with other trainings.

    Args:
        difference: for each image, e.g. the share of seeds in which a head was right less that of the control.
        seed: of the resampling.
        resamples: number of samples.

    Raises:
        ValueError: if there are no images.

    >>> estimate = bootstrap_images([1.0] * 60 + [0.0] * 30 + [-1.0] * 10)
    >>> round(estimate.mean, 2), round(estimate.low, 1), round(estimate.high, 1)
    (0.5, 0.4, 0.6)
    """
    x = np.asarray(difference, float)
    if not len(x):
        raise ValueError("a bootstrap needs at least one image, got none")
    values, counts = np.unique(x.round(9), return_counts=True)  # equal images are interchangeable: draw their counts
    draws = np.random.default_rng(seed).multinomial(len(x), counts / len(x), resamples)
    means = draws @ values / len(x)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(x.mean()), float(low), float(high), len(x))


def epochs_to_reach(curve: Sequence[float | None], goal: float) -> int | None:
    """Count the epochs after which a curve reaches a goal for the first time; nothing where it does not.

    >>> epochs_to_reach([0.5, 0.7, 0.6], 0.7), epochs_to_reach([0.5], 0.7)
    (2, None)
    """
    return next((i + 1 for i, value in enumerate(curve) if value is not None and value >= goal), None)


def points(share: float, signed: bool = True) -> str:
    """Write a fraction in points of per cent; zero has no sign.

    >>> points(0.0125), points(-0.000001), points(0.5, signed=False)
    ('+1.25', '0.00', '50.00')
    """
    value = round(100 * share, 2) + 0.0
    return f"{value:{'+' if signed and value else ''}.2f}"


def percent(estimate: Estimate | None) -> str:
    """Write a fraction in per cent with the half width of its interval, where it has one.

    >>> percent(Estimate(0.5, 0.4, 0.6, 3)), percent(Estimate(0.5, None, None, 1)), percent(None)
    ('50.00 ± 10.00', '50.00', '–')
    """
    if estimate is None:
        return "–"
    half = "" if estimate.high is None else f" ± {100 * (estimate.high - estimate.mean):.2f}"
    return points(estimate.mean, signed=False) + half


def percent_between(estimate: Estimate | None, signed: bool = True) -> str:
    """Write a difference, or a fraction without sign, in per cent with the ends of its interval.

    >>> percent_between(Estimate(0.01, -0.01, 0.03, 3)), percent_between(Estimate(0.5, 0.4, 0.6, 9), signed=False)
    ('+1.00 (-1.00 to +3.00)', '50.00 (40.00 to 60.00)')
    """
    if estimate is None:
        return "–"
    mean = points(estimate.mean, signed)
    if estimate.low is None or estimate.high is None:
        return mean
    return f"{mean} ({points(estimate.low, signed)} to {points(estimate.high, signed)})"

"""Splits at random: which part the images of small classes come into."""

from __future__ import annotations

from collections import Counter

import pytest

from gcpzoo.data.splits import hold_out


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.9])
def test_every_class_of_two_images_is_in_both_parts_beside_much_larger_ones(fraction: float) -> None:
    counts = (200, 50, 50, 2, 2)
    samples = [(f"{label}-{i}.png", label) for label, n in enumerate(counts) for i in range(n)]
    rest, held = hold_out(samples, list("abcde"), fraction, seed=0)
    assert sorted(rest + held) == sorted(samples)
    for part in (rest, held):
        assert part == [sample for sample in samples if sample in set(part)]
        assert set(Counter(label for _, label in part)) == set(range(5))
    assert abs(len(held) - fraction * len(samples)) <= 3

"""Random splits that keep the share of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gcpzoo.errors import ZooError


def hold_out(
    samples: Sequence[tuple[Any, int]], class_names: Sequence[str], fraction: float, seed: int
) -> tuple[list[tuple[Any, int]], list[tuple[Any, int]]]:
    """Split ``(image, label)`` pairs at random, stratified by label, with scikit-learn.

    Returns:
        The rest and the held-out ``fraction``, both in the order of ``samples``.

    Raises:
        ZooError: if a class is too small to be in both parts.

    >>> samples = [(f"{i}.png", i % 2) for i in range(8)]
    >>> rest, held = hold_out(samples, ["cat", "dog"], fraction=0.25, seed=0)
    >>> len(rest), sorted(label for _, label in held)
    (6, [0, 1])
    """
    from sklearn.model_selection import train_test_split

    labels = [label for _, label in samples]
    try:
        rest, held = train_test_split(range(len(samples)), test_size=fraction, random_state=seed, stratify=labels)
    except ValueError as error:
        smallest = min(set(labels), key=labels.count)
        raise ZooError(
            f"cannot hold out a share of {fraction} of {len(samples)} images in {len(set(labels))} classes "
            f"(the smallest, {class_names[smallest]!r}, has {labels.count(smallest)}): {error}; "
            "val_fraction 0 holds nothing out"
        ) from None
    return [samples[i] for i in sorted(rest)], [samples[i] for i in sorted(held)]

"""Random splits that keep the share of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gcpzoo.errors import ZooError


def take_fold(
    samples: Sequence[tuple[Any, int]], class_names: Sequence[str], folds: int, fold: int, seed: int
) -> tuple[list[tuple[Any, int]], list[tuple[Any, int]]]:
    """Split ``(image, label)`` pairs into equal parts, stratified by label, and take one of them out.

    Args:
        samples: the pairs.
        class_names: names of the labels, for the message.
        folds: number of parts.
        fold: which of them, from 0.
        seed: of the random draw, the same for all parts.

    Returns:
        The rest and the part, both in the order of ``samples``.

    Raises:
        ZooError: if a class has fewer images than there are parts.

    >>> samples = [(f"{i}.png", i % 2) for i in range(6)]
    >>> [take_fold(samples, ["cat", "dog"], 3, fold, seed=0)[1] for fold in range(3)]
    [[('3.png', 1), ('4.png', 0)], [('2.png', 0), ('5.png', 1)], [('0.png', 0), ('1.png', 1)]]
    """
    from sklearn.model_selection import StratifiedKFold

    labels = [label for _, label in samples]
    name, fewest = _smallest(labels, class_names)
    if fewest < folds:
        raise ZooError(
            f"folds must be at most the number of images of every class, got {folds}: {name!r} has "
            f"{fewest}; add images, or lower folds"
        )
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)
    rest, part = list(parts)[fold]
    return [samples[i] for i in rest], [samples[i] for i in part]


def hold_out(
    samples: Sequence[tuple[Any, int]],
    class_names: Sequence[str],
    fraction: float,
    seed: int,
    remedy: str = "add images",
    keep_single: bool = False,
) -> tuple[list[tuple[Any, int]], list[tuple[Any, int]]]:
    """Split ``(image, label)`` pairs at random, stratified by label, with scikit-learn.

    A class too small for its share to be a whole image still has one in either part.

    Args:
        samples: the pairs.
        class_names: names of the labels, for the message.
        fraction: share to hold out.
        seed: of the random draw.
        remedy: end of the message: what to do if a class is too small.
        keep_single: leave the image of a class that has a single one in the rest, instead of refusing to split.

    Returns:
        The rest and the held-out ``fraction``, both in the order of ``samples``.

    Raises:
        ZooError: if a class has a single image, or a part fewer images than there are classes.

    >>> samples = [(f"{i}.png", i % 2) for i in range(8)]
    >>> rest, held = hold_out(samples, ["cat", "dog"], fraction=0.25, seed=0)
    >>> len(rest), sorted(label for _, label in held)
    (6, [0, 1])
    """
    from sklearn.model_selection import train_test_split

    labels = [label for _, label in samples]
    count = Counter(labels)
    single = [i for i, label in enumerate(labels) if keep_single and count[label] == 1]
    places = [i for i, label in enumerate(labels) if not (keep_single and count[label] == 1)]
    try:
        stratify = [labels[i] for i in places]
        rest, held = train_test_split(places, test_size=fraction, random_state=seed, stratify=stratify)
    except ValueError:
        name, fewest = _smallest(labels, class_names)
        raise ZooError(
            f"cannot hold out a share of {fraction} of {len(samples)} images in {len(count)} classes: "
            f"both parts need images of every class (the smallest, {name!r}, "
            f"has {fewest}); {remedy}"
        ) from None
    for part, other in ((held, rest), (rest, held)):
        for label in sorted(set(stratify) - {labels[i] for i in part}):
            i = next(i for i in other if labels[i] == label)
            other.remove(i)
            part.append(i)
    return [samples[i] for i in sorted([*rest, *single])], [samples[i] for i in sorted(held)]


def _smallest(labels: Sequence[int], class_names: Sequence[str]) -> tuple[str, int]:
    """Find the class with the fewest images, the first of several, and how many it has."""
    label, fewest = min(Counter(labels).items(), key=lambda item: (item[1], item[0]))
    return class_names[label], fewest

"""Accuracy against the number of training images: classifiers on frozen features, over several draws of the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gcpzoo.errors import ZooError
from gcpzoo.experiments.probe.features import Features
from gcpzoo.experiments.probe.protocols import PROTOCOLS, to_span

PROTOCOL = "ridge"


def learning_curve(
    train: Features, test: Features, shots: Sequence[int], draws: int = 10, held_out: int = 200
) -> dict[int, dict[int, float]]:
    """Learn from K images of each class, by ridge regression on frozen features, and measure on all test images.

    ``held_out`` training images are never learned from. The strength of the penalty is chosen on them, for each K the
    one that is best on average over the draws; every head has the same strengths to choose from. The same draw takes
    the same images of every head's features.

    Args:
        train, test: features of both splits.
        shots: images of a class to learn from.
        draws: of the images.
        held_out: images to choose by.

    Returns:
        For each number of images and each draw the share of the test images that are right.

    Raises:
        ZooError: if a class has too few training images.

    >>> x = np.tile(np.eye(2, dtype=np.float32), (20, 1))
    >>> features = Features(x, np.tile([0, 1], 20), ["cat", "dog"], False)
    >>> learning_curve(features, features, [1, 5], draws=2, held_out=10)
    {1: {0: 1.0, 1: 1.0}, 5: {0: 1.0, 1: 1.0}}
    """
    scale, make, settings = PROTOCOLS[PROTOCOL]
    x, z = (f.x.astype(np.float64) for f in (train, test))
    x, z = scale(x, x), scale(x, z)
    order = np.random.default_rng(0).permutation(len(train.y))
    held, pool = order[:held_out], order[held_out:]
    fewest = min(int((train.y[pool] == label).sum()) for label in range(len(train.class_names)))
    if fewest < max(shots):
        raise ZooError(f"images of a class must be at most {fewest}, those that are not held out, got {max(shots)}")
    curve = {}
    for count in shots:
        shares = np.zeros((2, draws, len(settings)))
        for draw in range(draws):
            own = _draw(train.y, pool, count, draw)
            own_x, held_x, test_x = to_span(x[own], x[held], z)
            for i, setting in enumerate(settings):
                classifier = make(**setting).fit(own_x, train.y[own])
                shares[0, draw, i] = (classifier.predict(held_x) == train.y[held]).mean()
                shares[1, draw, i] = (classifier.predict(test_x) == test.y).mean()
        best = int(shares[0].mean(0).argmax())
        curve[count] = {draw: float(shares[1, draw, best]) for draw in range(draws)}
    return curve


def _draw(labels: Any, pool: Any, count: int, draw: int) -> Any:
    """Draw images of each class from the pool."""
    random = np.random.default_rng(draw)
    return np.concatenate([random.permutation(pool[labels[pool] == c])[:count] for c in np.unique(labels)])


def join(*parts: Features) -> Features:
    """Put the features of several heads side by side, each scaled to a mean norm of 1: their fusion.

    Args:
        parts: features of the same images.

    >>> one = Features(np.array([[3.0, 4.0]]), np.array([0]), ["cat"], False)
    >>> join(one, one).x.tolist()
    [[0.6, 0.8, 0.6, 0.8]]
    """
    x = np.concatenate([f.x / np.linalg.norm(f.x, axis=1).mean() for f in parts], axis=1)
    return Features(x, parts[0].y, parts[0].class_names, all(f.cached for f in parts))

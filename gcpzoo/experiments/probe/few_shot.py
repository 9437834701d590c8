"""Few-shot episodes: N classes, K images of each to learn from, on frozen features."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from gcpzoo.errors import ZooError
from gcpzoo.experiments.probe.features import Features
from gcpzoo.experiments.probe.protocols import check_seed, to_span, to_unit_norm
from gcpzoo.experiments.statistics import mean_interval


@dataclass(frozen=True)
class FewShotResult:
    """Mean accuracy over episodes with its 95 % interval.

    >>> FewShotResult(5, 1, 15, 2000, "prototype", 0.5, 0.49, 0.51).to_dict()["ways"]
    5
    """

    ways: int
    shots: int
    queries: int
    episodes: int
    classifier: str
    top1: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values.

        >>> FewShotResult(5, 1, 15, 2000, "prototype", 0.5, 0.49, 0.51).to_dict()["shots"]
        1
        """
        return asdict(self)


def check_episodes(
    labels: Any, ways: int = 5, shots: int = 1, queries: int = 15, episodes: int = 2000, seed: int = 0
) -> list[Any]:
    """Give the images of each class that has enough of them for an episode.

    Args:
        labels: the class of every image.
        ways, shots, queries, episodes, seed: as for :func:`few_shot`.

    Raises:
        ZooError: if there are too few such classes, or a number is too small.

    >>> [indices.tolist() for indices in check_episodes([0, 0, 1, 2, 2], ways=2, queries=1)]
    [[0, 1], [3, 4]]
    """
    numbers = {"ways": (ways, 2), "shots": (shots, 1), "queries": (queries, 1), "episodes": (episodes, 2)}
    for name, (value, least) in numbers.items():
        if value < least:
            raise ZooError(f"{name} must be at least {least}, got {value}")
    check_seed(seed)
    y = np.asarray(labels)
    of_class = [np.flatnonzero(y == k) for k in np.unique(y)]
    enough = [indices for indices in of_class if len(indices) >= shots + queries]
    if len(enough) < ways:
        largest = sorted(map(len, of_class), reverse=True)[:ways]
        remedy = f"there are {len(of_class)} classes: give fewer ways"
        if len(of_class) >= ways:
            remedy = f"{ways} classes have {largest[-1]} or more: give shots and queries of at most that together"
        raise ZooError(
            f"an episode needs {ways} classes with {shots} + {queries} images (shots and queries), and {len(enough)} "
            f"have so many; {remedy}"
        )
    return enough


def few_shot(
    features: Features,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 2000,
    classifier: Literal["logistic", "prototype"] = "logistic",
    seed: int = 0,
) -> FewShotResult:
    """Measure N-way K-shot classification: in every episode N classes are drawn, K images of each to learn from, and
    ``queries`` others of each to classify.

    The protocol of DeepBDC (Xie et al., CVPR 2022). ``logistic``: logistic regression with C = 1 on ℓ2-normalized
    features (their STL). ``prototype``: the mean of a class's images, compared by the inner product for one shot and
    by the Euclidean distance for more (their Meta, without its training by episodes). The classes should be others than
    the network was trained on.

    Args:
        features: of all images to draw from.
        ways, shots, queries: classes, images to learn from and images to classify of each class in an episode.
        episodes: at least two.
        classifier: see above.
        seed: of the episodes; the same seed draws the same images for every network on the same data.

    Raises:
        ZooError: as :func:`check_episodes`.

    >>> x = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    >>> features = Features(x, np.repeat([0, 1, 2], 4), ["a", "b", "c"], False)
    >>> few_shot(features, ways=2, shots=1, queries=3, episodes=5).top1
    1.0
    """
    enough = check_episodes(features.y, ways, shots, queries, episodes, seed)
    x = features.x.astype(np.float64)
    if classifier == "logistic":
        x = to_unit_norm(None, x)
    accuracies = []
    for episode in range(episodes):
        random = np.random.default_rng([seed, episode])
        classes = random.choice(len(enough), ways, replace=False)
        drawn = np.stack([random.choice(enough[k], shots + queries, replace=False) for k in classes])
        support, query = x[drawn[:, :shots]], x[drawn[:, shots:].reshape(-1)]
        answers = _prototypes(support, query) if classifier == "prototype" else _logistic(support, query)
        accuracies.append(float((answers == np.repeat(np.arange(ways), queries)).mean()))
    estimate = mean_interval(accuracies)
    assert estimate.low is not None
    assert estimate.high is not None
    found = (estimate.mean, estimate.low, estimate.high)
    return FewShotResult(ways, shots, queries, episodes, classifier, *found)


def _prototypes(support: Any, query: Any) -> Any:
    """Classify by the means of ``support`` ``(ways, shots, d)``."""
    means = support.mean(1)
    scores = query @ means.T
    if support.shape[1] > 1:
        scores = 2 * scores - (means**2).sum(1)  # the negative squared distance but for what all classes share
    return scores.argmax(1)


def _logistic(support: Any, query: Any) -> Any:
    """Classify by logistic regression, in the few dimensions that the support spans."""
    from sklearn.linear_model import LogisticRegression

    ways, shots, _ = support.shape
    x = support.reshape(ways * shots, -1)
    if x.shape[1] > len(x):
        x, query = to_span(x, query)
    return LogisticRegression(C=1.0, max_iter=1000).fit(x, np.repeat(np.arange(ways), shots)).predict(query)

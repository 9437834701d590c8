"""Classifiers on frozen features: linear, nearest neighbors, and the SVM of the fine-grained papers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.experiments.probe.features import Features
from gcpzoo.experiments.statistics import bootstrap_images

HELD_OUT = 0.2
"""Share of the training images on which a setting is chosen, stratified; then all of them are learned from."""


@dataclass(frozen=True)
class ProbeResult:
    """What a protocol measured.

    Attributes:
        top1: share of the test images that are right; ``low`` and ``high``: its 95 % interval over test images.
        setting: what was chosen on a part of the training images.

    >>> ProbeResult("knn", 0.5, 0.4, 0.6, 100, 64, {"k": 5}).to_dict()["top1"]
    0.5
    """

    protocol: str
    top1: float
    low: float
    high: float
    images: int
    dim: int
    setting: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values.

        >>> ProbeResult("svm", 1.0, 1.0, 1.0, 9, 8, {}).to_dict()["images"]
        9
        """
        return asdict(self)


def probe(train: Features, test: Features, protocol: str = "linear", seed: int = 0) -> ProbeResult:
    """Learn a classifier of frozen features and measure it once on the test images.

    ``linear``: multinomial logistic regression on features scaled to a mean norm of 1. ``ridge``: least squares on the
    same. ``knn``: nearest neighbors by cosine. ``svm``: one-against-all linear SVMs with C = 1 on ℓ2-normalized
    features, as in the fine-grained experiments of Lin et al. (ICCV 2015) and Li et al. (CVPR 2018). The strength of
    the regularization and the number of neighbors are chosen on a fifth of the training images.

    Args:
        train, test: features of both splits.
        protocol: its name.
        seed: of what is held out for the choice.

    Raises:
        ZooError: if there is no such protocol, the seed is out of range, or a class has fewer than two training images
            where a setting is chosen.

    >>> x = np.concatenate([np.full((9, 2), -1.0), np.full((9, 2), 1.0)]).astype(np.float32)
    >>> features = Features(x, np.repeat([0, 1], 9), ["cat", "dog"], False)
    >>> probe(features, features, "svm").top1
    1.0
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    check_seed(seed)
    scale, make, settings = PROTOCOLS[protocol]
    x, z = (f.x.astype(np.float64) for f in (train, test))
    x, z = scale(x, x), scale(x, z)
    if x.shape[1] > len(x):
        x, z = to_span(x, z)
    setting = _choose(make, settings, x, train.y, seed) if len(settings) > 1 else settings[0]
    right = _predict(make(**setting), x, train.y, z) == test.y
    interval = bootstrap_images(right.astype(float))
    assert interval.low is not None
    assert interval.high is not None
    dim = int(train.x.shape[1])
    return ProbeResult(protocol, interval.mean, interval.low, interval.high, len(right), dim, setting)


def check_seed(seed: int) -> None:
    """Refuse a seed that NumPy's generators do not take.

    >>> check_seed(-1)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: seed must be from 0 to 4294967295, got -1
    """
    if not 0 <= seed < 2**32:
        raise ZooError(f"seed must be from 0 to {2**32 - 1}, got {seed}")


def to_span(x: Any, *others: Any) -> list[Any]:
    """Turn features into the space that the training images ``x`` span: all that these classifiers can use of them.

    Inner products with training images stay the same, and with them every classifier whose weights are penalized by
    their Euclidean norm, at a fraction of the time where there are fewer images than features. Distances between other
    images are of no concern; those to training images lack what no training image has, the same for all of them.

    >>> x, z = to_span(np.array([[3.0, 0, 4]]), np.array([[3.0, 5, 4]]))
    >>> x.shape, z.shape, round(float((x @ z.T)[0, 0]), 6)
    ((1, 1), (1, 1), 25.0)
    """
    q, r = np.linalg.qr(x.T)
    return [r.T, *(z @ q for z in others)]


def _choose(make: Callable[..., Any], settings: list[dict[str, Any]], x: Any, y: Any, seed: int) -> dict[str, Any]:
    """Choose the setting that is best on held-out training images; of equals the first."""
    from sklearn.model_selection import train_test_split

    try:
        rest, held = train_test_split(np.arange(len(y)), test_size=HELD_OUT, stratify=y, random_state=seed)
    except ValueError as error:
        raise ZooError(f"the training images do not suffice to choose a setting by: {error}") from None
    shares = [float((_predict(make(**s), x[rest], y[rest], x[held]) == y[held]).mean()) for s in settings]
    return settings[int(np.argmax(shares))]


def _predict(classifier: Any, x: Any, y: Any, z: Any) -> Any:
    from sklearn.exceptions import ConvergenceWarning

    if len(np.unique(y)) < 2:
        raise ZooError("a probe needs images of at least two classes to learn from")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            classifier.fit(x, y)
        except ConvergenceWarning:
            raise ZooError(f"{type(classifier).__name__} has not converged on these features") from None
    return classifier.predict(z)


def _to_mean_norm(x: Any, z: Any) -> Any:
    """Scale all features by the mean norm of the training images: heads differ in it, the penalty must not."""
    return z / max(float(np.linalg.norm(x, axis=1).mean()), 1e-12)


def to_unit_norm(x: Any, z: Any) -> Any:
    """Scale every vector to norm 1; ``x``, the training vectors, do not matter.

    >>> to_unit_norm(None, np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)


def _logistic(c: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=5000)


def _ridge(alpha: float) -> Any:
    from sklearn.linear_model import RidgeClassifier

    return RidgeClassifier(alpha=alpha)


def _neighbors(k: int) -> Any:
    return Neighbors(k)


def _svm(c: float) -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC(C=c, dual=True, max_iter=20_000, random_state=0)


class Neighbors:
    """The class of most of the k nearest training images by cosine, each weighted by its similarity.

    >>> Neighbors(1).fit(np.eye(2), np.array([5, 7])).predict(np.array([[1.0, 0.1]]))
    array([5])
    """

    def __init__(self, k: int) -> None:
        self.k = k

    def fit(self, x: Any, y: Any) -> Neighbors:
        """Keep the training images."""
        self.x, (self.classes, self.y) = x, np.unique(y, return_inverse=True)
        return self

    def predict(self, z: Any) -> Any:
        """Classify vectors, a part at a time."""
        return np.concatenate([self._predict(part) for part in self._parts(z)])

    def _parts(self, z: Any) -> Iterator[Any]:
        for start in range(0, len(z), 1024):
            yield z[start : start + 1024]

    def _predict(self, z: Any) -> Any:
        similarity = z @ self.x.T
        k = min(self.k, len(self.x))
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        votes = np.zeros((len(z), len(self.classes)))
        weights = np.maximum(np.take_along_axis(similarity, nearest, 1), 0) + 1e-9
        np.add.at(votes, (np.arange(len(z))[:, None], self.y[nearest]), weights)
        return self.classes[votes.argmax(1)]


PROTOCOLS: Mapping[str, tuple[Callable[[Any, Any], Any], Callable[..., Any], list[dict[str, Any]]]] = {
    "linear": (_to_mean_norm, _logistic, [{"c": float(10.0**p)} for p in range(-1, 5)]),
    "ridge": (_to_mean_norm, _ridge, [{"alpha": float(10.0**p)} for p in range(2, -5, -1)]),
    "knn": (to_unit_norm, _neighbors, [{"k": k} for k in (1, 3, 5, 10, 20)]),
    "svm": (to_unit_norm, _svm, [{"c": 1.0}]),
}
"""Name → how features are scaled, the classifier, and the settings to choose from."""

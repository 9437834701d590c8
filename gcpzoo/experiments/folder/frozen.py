"""Which head suits a folder: both on the frozen backbone, before anything is trained."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcpzoo.analysis.over_images import over_images
from gcpzoo.analysis.spectrum import pooled_features
from gcpzoo.data import ImageFolder
from gcpzoo.errors import ZooError
from gcpzoo.experiments.folder.source import Source
from gcpzoo.experiments.folder.survey import FolderSurvey
from gcpzoo.experiments.probe.features import Features
from gcpzoo.experiments.probe.learning_curve import PROTOCOL, join
from gcpzoo.experiments.probe.protocols import PROTOCOLS, to_span
from gcpzoo.experiments.statistics import bootstrap_images
from gcpzoo.heads import create_head
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.training.network import build_network

IMAGES, LEAST = 1_000, 60
"""Most training images that are looked at, and fewest that say anything."""
CHANNELS, FITTED = 256, 64
"""Channels that the covariance is reduced to, and images whose principal directions they are."""
FOLDS = 5
"""Consecutive in the order of the files: images of one scene stand beside each other, and must not be torn apart."""
GIVEN_BACK = 0.1
"""Share of the images by which the covariance must be ahead on the frozen backbone, beyond doubt. Fine-tuning makes up
for much of what the mean lacks there: docs/own_images.md has the folders that were trained end to end with both heads.
"""


@dataclass(frozen=True)
class FrozenComparison:
    """What the two heads make of a frozen backbone.

    Attributes:
        gcp, gap: share of the images that are right, each classified by what the other folds taught.
        low, high: 95 % interval over images of their difference.
        images: how many.

    >>> FrozenComparison(0.9, 0.7, 0.15, 0.25, 500).keep
    'gcp'
    >>> FrozenComparison(0.9, 0.8, 0.07, 0.13, 500).keep
    'gap'
    """

    gcp: float
    gap: float
    low: float
    high: float
    images: int

    @property
    def keep(self) -> str:
        """The covariance where it is ahead by more than fine-tuning gives back; else the mean, smaller and faster."""
        return "gcp" if self.low > GIVEN_BACK else "gap"


def compare_frozen(survey: FolderSurvey, source: Source, size: int, seed: int = 0) -> FrozenComparison | None:
    """Classify training images by the mean, and by covariance and mean, of the backbone's features as they are.

    Features of more than 256 channels are reduced to their principal directions for the covariance, whose root is
    isqrt's. The classifier is ridge regression, in five folds of neighboring files; its penalty is the best of the same
    list for both.

    Args:
        survey: of the folder; its test and validation images are not looked at.
        source: backbone and weights.
        size: side of the images.
        seed: of the images that are taken.

    Returns:
        The comparison; ``None`` where there are too few images for one.

    >>> survey = FolderSurvey("x", {"train": 9, "test": 2}, {"cat": 7, "dog": 2}, 200, 0, 0.2, 0.1)
    >>> compare_frozen(survey, Source({"backbone": "resnet18"}, ""), 32) is None
    True
    """
    if not says_anything(survey):
        return None
    options: dict[str, Any] = {
        "image_size": size,
        "test_fraction": survey.test_fraction or None,
        "val_fraction": survey.val_fraction,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the training says it of the same folder
        data = ImageFolder(survey.root, check=False, **{k: v for k, v in options.items() if v is not None})
        samples = data.samples("train")
    chosen = np.random.default_rng(seed).permutation(len(samples))[:IMAGES]
    model = _network(source)
    found = _features(model, sorted(samples[i] for i in chosen), data)
    y = found["gap"].y
    right = {name: _out_of_fold(features) == y for name, features in found.items()}
    difference = bootstrap_images(right["gcp"].astype(float) - right["gap"].astype(float))
    assert difference.low is not None
    assert difference.high is not None
    shares = {name: float(hits.mean()) for name, hits in right.items()}
    return FrozenComparison(shares["gcp"], shares["gap"], difference.low, difference.high, len(y))


def says_anything(survey: FolderSurvey) -> bool:
    """Say whether there are enough images to compare the heads by: 60 to train on, two of each class.

    >>> says_anything(FolderSurvey("x", {"train": 9, "test": 2}, {"cat": 7, "dog": 2}, 200, 0, 0.2, 0.1))
    False
    """
    return survey.images["train"] >= LEAST and min(survey.per_class.values()) >= 2


def _network(source: Source) -> GCPNet:
    own = {key: value for key, value in source.model.items() if key != "backbone_weights"}
    weights = source.model.get("backbone_weights")
    return build_network({"head": "gap", "num_classes": 2, **own}, {}, backbone_weights=weights).model.eval()


def _features(model: GCPNet, samples: list[Any], data: ImageFolder) -> dict[str, Features]:
    """Compute means and roots of covariances of the images that can be read."""
    paths = [path for path, _ in samples]
    width, directions = model.backbone.num_features, None
    if width > CHANNELS:
        few = np.linspace(0, len(paths) - 1, FITTED).astype(int)
        directions = _principal(torch.stack([y for _, y in _readable(model, _maps, [paths[i] for i in few], data)]))
    root = create_head("isqrt", min(width, CHANNELS), dim=None).eval()

    def both(net: GCPNet, x: Tensor) -> Tensor:
        maps = _maps(net, x)
        reduced = maps if directions is None else torch.einsum("dc,bcp->bdp", directions.to(maps), maps)
        return torch.cat([maps.mean(2), root(reduced[..., None])], 1)

    vectors = _readable(model, both, paths, data)
    y = np.array([samples[i][1] for i, _ in vectors])
    x = np.stack([v.numpy() for _, v in vectors])
    gap, covariance = (Features(part, y, data.class_names, False) for part in (x[:, :width], x[:, width:]))
    return {"gap": gap, "gcp": join(gap, covariance)}


def _maps(model: GCPNet, x: Tensor) -> Tensor:
    """Features of the positions that a head reads, ``(B, C, positions)``."""
    return pooled_features(model, x).flatten(2)


def _readable(model: GCPNet, function: Any, paths: list[str], data: ImageFolder) -> list[tuple[int, Tensor]]:
    """Compute a vector of each image that can be read, with its place in the list."""
    found: dict[int, Tensor] = {}
    faults: dict[int, str] = {}
    for outputs in over_images(model, function, paths, rule=data.preprocessing, device="auto"):
        found |= outputs.values
        faults |= outputs.faults
    if not found:
        raise ZooError(f"none of {len(paths):,} training images can be read; the first: {faults[0]}")
    return sorted(found.items())


def _principal(maps: Tensor) -> Tensor:
    """Principal directions ``(256, C)`` of the features ``(N, C, positions)`` of all positions, largest first."""
    x = maps.transpose(1, 2).flatten(0, 1)
    x = x - x.mean(0)
    return torch.linalg.eigh(x.T @ x)[1][:, -CHANNELS:].flip(1).T


def _out_of_fold(features: Features) -> Any:
    """Predict each image by a classifier that learned from the other folds, at the best penalty of the list."""
    from sklearn.model_selection import StratifiedKFold

    scale, make, settings = PROTOCOLS[PROTOCOL]
    x = scale(features.x, features.x).astype(np.float64)
    if x.shape[1] > len(x):
        (x,) = to_span(x)
    folds = min(FOLDS, int(np.bincount(features.y).max()))
    predicted = np.zeros((len(settings), len(x)), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer images than folds
        for rest, held in StratifiedKFold(folds).split(x, features.y):
            for i, setting in enumerate(settings):
                predicted[i, held] = make(**setting).fit(x[rest], features.y[rest]).predict(x[held])
    return predicted[int((predicted == features.y).mean(1).argmax())]

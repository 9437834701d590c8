"""Nearest images by the cosine of their vectors, and how well they find the same class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from gcpzoo.analysis.embeddings import Embeddings, covariance_vectors, embed
from gcpzoo.analysis.over_images import over_images, vectors
from gcpzoo.errors import ZooError
from gcpzoo.hub.loading import load
from gcpzoo.models.fingerprint import fingerprint
from gcpzoo.models.gcpnet import GCPNet

QUERIES = 256
"""Images that are compared with all others at a time."""


@dataclass(frozen=True)
class Retrieval:
    """How well images find those of their class among all others, as shares between 0 and 1.

    Attributes:
        recall: by k, the share of queries with an image of their class among the k nearest.
        mean_average_precision: mean over the queries of their average precision.
        queries: number of images that have another one of their class; each asks once.
        images: number of all images.

    >>> Retrieval({1: 0.5}, 0.75, 4, 5).to_dict()["map"]
    0.75
    """

    recall: dict[int, float]
    mean_average_precision: float
    queries: int
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values.

        >>> Retrieval({1: 0.5}, 0.75, 4, 5).to_dict()
        {'recall@1': 0.5, 'map': 0.75, 'queries': 4, 'images': 5}
        """
        values = asdict(self)
        recall = {f"recall@{k}": v for k, v in values.pop("recall").items()}
        return {**recall, "map": values.pop("mean_average_precision"), **values}


def evaluate_retrieval(found: Embeddings, ks: Sequence[int] = (1, 5, 10)) -> Retrieval:
    r"""Let every image look for the others of its class; it is not among its own results.

    All other images are ranked by cosine. With :math:`r_i = 1` where the i-th of them has the query's class and
    :math:`R = \sum_i r_i`, the average precision of a query is

    .. math:: \mathrm{AP} = \tfrac1R \sum_i r_i \, \tfrac1i \sum_{j \le i} r_j,

    and mAP its mean over the queries with :math:`R \ge 1`; images alone in their class are results, but no queries.

    Args:
        found: vectors with labels.
        ks: numbers of results for recall.

    Raises:
        ZooError: if there are no labels, or no class has two images.

    >>> x = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    >>> evaluate_retrieval(Embeddings(x, list("abcd"), np.array([0, 0, 1, 1]), ["x", "y"]), ks=[1]).to_dict()
    {'recall@1': 1.0, 'map': 1.0, 'queries': 4, 'images': 4}
    """
    y, n = found.labels, len(found.vectors)
    if y is None:
        raise ZooError("recall and mAP need labels: embed a folder of class folders")
    if any(k < 1 for k in ks):
        raise ZooError(f"k must be at least 1, got {min(ks)}")
    asking = np.flatnonzero(np.bincount(y)[y] > 1)
    if not len(asking):
        raise ZooError(f"recall and mAP need two images of a class at least, got {n} images without")
    index = _index(found.vectors)
    precision: list[np.ndarray] = []
    first: list[np.ndarray] = []
    for start in range(0, len(asking), QUERIES):
        rows = asking[start : start + QUERIES]
        order = index.kneighbors(found.vectors[rows], n, return_distance=False)
        order = order[order != rows[:, None]].reshape(len(rows), n - 1)
        relevant = y[order] == y[rows][:, None]
        place = np.arange(1, n)
        precision.append((relevant * relevant.cumsum(1) / place).sum(1) / relevant.sum(1))
        first.append(relevant.argmax(1) + 1)
    ranks = np.concatenate(first)
    recall = {k: float((ranks <= k).mean()) for k in ks}
    return Retrieval(recall, float(np.concatenate(precision).mean()), len(asking), n)


def nearest(found: Embeddings, queries: np.ndarray, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest images of each query.

    Args:
        found: the vectors to look among.
        queries: ``(Q, D)``.
        k: number of results; at most all.

    Returns:
        Positions ``(Q, k)`` in ``found``, nearest first, and their cosines.

    Raises:
        ZooError: if ``k`` or the length of the vectors does not fit.

    >>> x = np.array([[1, 0], [1, 1], [0, 1]], np.float32)
    >>> at, cosine = nearest(Embeddings(x, list("abc")), np.array([[2, 1.9]]), k=2)
    >>> at.tolist(), cosine.round(2).tolist()
    ([[1, 0]], [[1.0, 0.72]])
    """
    if k < 1:
        raise ZooError(f"k must be at least 1, got {k}")
    if queries.shape[1] != found.vectors.shape[1]:
        raise ZooError(f"queries must have {found.vectors.shape[1]:,} values each, got {queries.shape[1]:,}")
    distance, at = _index(found.vectors).kneighbors(queries, min(k, len(found.vectors)))
    return at, 1 - distance


def embed_queries(found: Embeddings, images: Sequence[str], model: GCPNet | str | None = None, **kwargs: Any) -> Any:
    """Compute the vectors of images in the way that those of ``found`` were.

    Args:
        found: embeddings that know what they depend on.
        images: the files.
        model: the model; null: the one that ``found`` names.
        kwargs: how to compute, see :func:`~gcpzoo.analysis.embeddings.embed`.

    Returns:
        Their :class:`~gcpzoo.analysis.embeddings.Embeddings`.

    Raises:
        ZooError: if the model is not the one, or an image cannot be read.

    >>> embed_queries(Embeddings(np.zeros((1, 3), np.float32), ["a.png"]), ["b.png"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: which model? these embeddings do not say by which they were made
    """
    model = model or found.about.get("model")
    if not model:
        raise ZooError("which model? these embeddings do not say by which they were made")
    network = model if isinstance(model, GCPNet) else load(model)
    check_model(found, network, "this one" if isinstance(model, GCPNet) else model)
    new = embed(network, images, bool(found.about.get("before_root")), **kwargs)
    return Embeddings(found.whitened(new.vectors), new.paths, about=found.about, faults=new.faults)


def query_vector(found: Embeddings, image: Image.Image, model: GCPNet) -> np.ndarray:
    """Compute the vector ``(1, D)`` of an image in the way that those of ``found`` were, by the model that made them.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "gap", 3, until="layer1").eval()
    >>> query_vector(Embeddings(np.zeros((1, 64), np.float32), ["a.png"]), Image.new("RGB", (32, 32)), model).shape
    (1, 64)
    """
    function = covariance_vectors if found.about.get("before_root") else vectors
    (outputs,) = over_images(model, function, [image], read=lambda image: image, workers=0)
    return found.whitened(outputs.values[0].numpy()[None])


def check_model(found: Embeddings, network: GCPNet, name: str) -> None:
    """Refuse embeddings that another model made.

    Args:
        found: the embeddings.
        network: the model that shall have made them.
        name: what the message calls it.

    Raises:
        ZooError: if it has not.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "gap", 3, until="layer1")
    >>> check_model(Embeddings(np.zeros((1, 64), np.float32), ["a.png"], about={"model": "mine"}), model, "yours")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: these embeddings are of another model (mine) than yours, or it has changed since: ...
    """
    if fingerprint(network) != found.about.get("fingerprint"):
        raise ZooError(
            f"these embeddings are of another model ({found.about.get('model')}) than {name}, or it has "
            "changed since: embed the images again"
        )


def _index(vectors: np.ndarray) -> Any:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(metric="cosine", algorithm="brute").fit(vectors)

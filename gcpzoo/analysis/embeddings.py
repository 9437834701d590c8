"""Vectors of images, as a network sees them before its classifier, in a file of plain arrays."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gcpzoo.analysis.over_images import over_images, vectors
from gcpzoo.analysis.spectrum import pooled_features
from gcpzoo.data.bulk import BATCH
from gcpzoo.data.images import refuse_faults
from gcpzoo.data.scan import refuse_unreadable, scan_images, split_folders
from gcpzoo.errors import ZooError
from gcpzoo.functional import as_matrix, covariance, triangle
from gcpzoo.functional.precision import at_least_float32
from gcpzoo.heads.base import SecondOrderHead
from gcpzoo.hub.loading import load
from gcpzoo.limits import load_json
from gcpzoo.models.fingerprint import fingerprint
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.paths import replacing

FORMAT = 1
LEAST = 1e-5
"""Smallest deviation of a component that is scaled to 1, in units of the largest: float32 knows a hundredth of it."""


@dataclass(frozen=True)
class Embeddings:
    """The vectors of images.

    Attributes:
        vectors: float32 ``(N, D)``.
        paths: of the images.
        labels: int64 ``(N,)`` where the images lie in class folders, else ``None``.
        class_names: the classes' ids; empty without labels.
        about: what they depend on: ``model``, its ``fingerprint``, ``before_root`` and ``whiten``.
        center, matrix: of the whitening, ``(v - center) @ matrix``; ``None`` without it.
        faults: why an image could not be read, by its path; it has no vector.

    >>> Embeddings(np.zeros((2, 3), np.float32), ["a.png", "b.png"]).vectors.shape
    (2, 3)
    """

    vectors: np.ndarray
    paths: list[str]
    labels: np.ndarray | None = None
    class_names: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    center: np.ndarray | None = None
    matrix: np.ndarray | None = None
    faults: dict[str, str] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them as ``.npz``, whole or not at all: ``vectors``, ``paths``, ``about``, and what else there is.

        Texts are arrays of plain unicode: ``numpy.load`` reads the file without pickle.

        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "emb.npz"
        >>> Embeddings(np.zeros((2, 3), np.float32), ["a.png", "b.png"]).save(file)
        >>> sorted(np.load(file)), str(np.load(file)["paths"][1])
        (['about', 'paths', 'vectors'], 'b.png')
        """
        arrays = {"vectors": self.vectors, "paths": np.array(self.paths, np.str_)}
        arrays["about"] = np.array(json.dumps({"format": FORMAT, **self.about}))
        if self.labels is not None:
            arrays |= {"labels": self.labels, "class_names": np.array(self.class_names, np.str_)}
        if self.center is not None and self.matrix is not None:
            arrays |= {"center": self.center, "matrix": self.matrix}
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Embeddings:
        """Read what :meth:`save` wrote.

        Raises:
            ZooError: if there is no such file, or it is another one.

        >>> Embeddings.read("/nowhere/emb.npz")
        Traceback (most recent call last):
        gcpzoo.errors.ZooError: no embeddings '/nowhere/emb.npz'; 'gcpzoo embed' makes them
        """
        name = os.fspath(path)
        try:
            a = _arrays(path)
            if missing := {"about", "vectors", "paths"} - set(a):
                raise ValueError(f"it lacks {', '.join(sorted(missing))}")
            about = load_json(str(a.pop("about")), name)
            names = a["class_names"].tolist() if "class_names" in a else []
            found = cls(
                a["vectors"], a["paths"].tolist(), a.get("labels"), names, about, a.get("center"), a.get("matrix")
            )
            found._check()
        except FileNotFoundError:
            raise ZooError(f"no embeddings {name!r}; 'gcpzoo embed' makes them") from None
        except (OSError, ValueError, AttributeError, TypeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ZooError(f"{name!r} does not hold embeddings of 'gcpzoo embed': {reason}") from None
        return found

    def whitened(self, vectors: np.ndarray) -> np.ndarray:
        """Bring other vectors ``(Q, F)`` to the form of these ``(Q, D)``: whitened if these are.

        >>> Embeddings(np.zeros((2, 3), np.float32), ["a.png", "b.png"]).whitened(np.ones((1, 3))).shape
        (1, 3)
        """
        if self.center is None or self.matrix is None:
            return vectors
        return ((vectors - self.center) @ self.matrix).astype(np.float32)

    def _check(self) -> None:
        """Refuse arrays that do not fit each other or cannot be used."""
        x, y = self.vectors, self.labels
        if (
            x.ndim != 2
            or x.dtype.kind != "f"
            or len({len(x), len(self.paths), len(self.paths if y is None else y)}) > 1
        ):
            raise ValueError("its arrays do not fit each other")
        if not x.size or not np.isfinite(x).all():
            raise ValueError("its vectors must be finite numbers, of one image at least")
        if y is not None and not np.isin(y, range(len(self.class_names))).all():
            raise ValueError("its labels are no classes")
        if not isinstance(self.about, dict) or not isinstance(self.about.get("model"), str | None):
            raise ValueError("it does not say by which model they were made")
        shapes = [None if a is None else a.shape for a in (self.center, self.matrix)]
        if shapes != [None, None] and (None in shapes or shapes[1] != (*shapes[0], x.shape[1])):  # type: ignore[misc]
            raise ValueError("its whitening does not fit its vectors")


def _arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):  # numpy advises to trust the file
        raise ValueError("no .npz file of plain arrays") from None


def covariance_vectors(model: GCPNet, x: Tensor) -> Tensor:
    """Answer images by the triangle of the covariance that the head sees, ``(B, groups·d(d+1)/2)``: before its root.

    Raises:
        ZooError: if the head makes no covariance.

    >>> import torch
    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "isqrt", 3, dim=8, until="layer1").eval()
    >>> covariance_vectors(model, torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 36])
    """
    head = model.head
    if not isinstance(head, SecondOrderHead):
        raise ZooError(f"before_root needs a head that makes a covariance, got {model.config['head']}")
    data = as_matrix(at_least_float32(head.reduce(pooled_features(model, x))))
    groups = data.reshape(len(x) * head.cov_groups, head.group_dim, data.shape[2])
    return triangle(covariance(groups, head.centered)).reshape(len(x), -1)


def embed(
    model: GCPNet | str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    before_root: bool = False,
    whiten: int | None = None,
    batch_size: int = BATCH,
    workers: int | None = None,
    device: str | None = None,
    skip_corrupt: bool = False,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Embeddings:
    """Compute the vectors of images.

    Args:
        model: a loaded model, or what :func:`gcpzoo.load` takes.
        images: a folder, whose sub-folders (below ``train``, ``test`` …, if it has those) are the classes, or files.
            Images beside these folders have no class; then none has.
        before_root: take the covariance, in place of what the head makes of it.
        whiten: keep so many principal components, each scaled to variance 1 (scikit-learn's ``PCA``).
        batch_size: images that the network sees at a time.
        workers: see :func:`~gcpzoo.data.bulk.read_batches`.
        device: ``cpu``, ``cuda``, … or ``auto``; null: where the model is.
        skip_corrupt: leave out images that cannot be read, and name them in ``faults``.
        advance: called with the number of images done, and of all.

    Raises:
        ZooError: if an image cannot be read, or an argument cannot work.

    >>> from PIL import Image
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "one.png"
    >>> Image.new("L", (8, 8)).save(file)
    >>> embed("resnet18_isqrt.digits", [file]).vectors.shape
    (1, 2080)
    """
    network = model if isinstance(model, GCPNet) else load(model)
    files, labels, names = _list(images)
    if whiten is not None and not 1 <= whiten <= len(files):
        raise ZooError(f"whiten must be between 1 and the {len(files):,} images, got {whiten}")
    found: dict[int, Any] = {}
    faults: dict[str, str] = {}
    options: Any = {"batch_size": batch_size, "workers": workers, "device": device}
    for outputs in over_images(network, covariance_vectors if before_root else vectors, files, **options):
        found |= {i: value.numpy() for i, value in outputs.values.items()}
        for i, why in outputs.faults.items():
            why = why.removeprefix(f"cannot read image {files[i]}: ")
            faults[files[i]] = why.removesuffix("; replace or delete it")
        advance(len(found) + len(faults), len(files))
    if faults and (not skip_corrupt or not found):
        root = os.fspath(images) if isinstance(images, str | os.PathLike) else os.getcwd()
        remedy = "replace or delete them" if skip_corrupt else "skip_corrupt=True leaves them out"
        refuse_faults(faults, len(files), root, remedy)
    x, center, matrix = np.stack([found[i] for i in sorted(found)]), None, None
    if whiten is not None:
        center, matrix = _whitening(x, whiten)
        x = ((x - center) @ matrix).astype(np.float32)
    kept = np.array(sorted(found))
    name = None if isinstance(model, GCPNet) else os.fspath(model)
    about = {"model": name, "fingerprint": fingerprint(network), "before_root": before_root, "whiten": whiten}
    y = None if labels is None else np.array(labels, np.int64)[kept]
    return Embeddings(x, [files[i] for i in kept], y, names, about, center, matrix, faults)


def _whitening(x: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.decomposition import PCA

    if components > min(x.shape):
        raise ZooError(f"whiten must be at most {min(x.shape)}, the lesser of images and values, got {components}")
    pca = PCA(components, whiten=True, random_state=0).fit(x)
    deviation = np.sqrt(pca.explained_variance_)
    rank = int((deviation > LEAST * deviation[0]).sum())
    if rank < components:
        raise ZooError(f"whiten must be at most {rank}, beyond which the vectors do not vary, got {components}")
    return pca.mean_, pca.components_.T / deviation


def _list(images: Any) -> tuple[list[str], list[int] | None, list[str]]:
    """List the files, and the classes where all lie in sub-folders of one folder."""
    if not isinstance(images, str | os.PathLike) or Path(images).is_file():
        single = isinstance(images, str | os.PathLike)
        return [os.fspath(path) for path in ([images] if single else images)], None, []
    root = os.fspath(images)
    inside = scan_images(root)
    refuse_unreadable(inside.unreadable)
    if not inside.images:
        raise ZooError(f"no image in folder {root!r}")
    parts = [Path(os.path.relpath(path, root)).parts for path in inside.images]
    splits = split_folders(root)[0].values()
    level = 1 if splits else 0
    if not all(len(part) > level + 1 and (not splits or part[0] in splits) for part in parts):
        return inside.images, None, []
    names = sorted({part[level] for part in parts})
    if len(names) < 2:
        return inside.images, None, []
    label = {name: i for i, name in enumerate(names)}
    return inside.images, [label[part[level]] for part in parts], names

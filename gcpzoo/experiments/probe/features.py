"""Frozen features of images: computed once, kept on the disk under the hash of what they depend on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from gcpzoo.analysis.over_images import over_images, vectors
from gcpzoo.data import ImageFolder
from gcpzoo.data.base import ImageDataModule, Index
from gcpzoo.data.folder import list_classes, scan, split_places
from gcpzoo.data.images import ImageError
from gcpzoo.data.loading import Sample
from gcpzoo.data.scan import root_folder
from gcpzoo.data.shards import ShardedFile
from gcpzoo.errors import ZooError
from gcpzoo.models.fingerprint import fingerprint
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.paths import cache, file_state, replacing

FORMAT = 3


@dataclass(frozen=True)
class Features:
    """The vectors of a split.

    Attributes:
        x: float32 ``(N, num_features)``, before the classifier.
        y: int64 ``(N,)``, the classes.
        class_names: ids of the classes.
        cached: whether they were on the disk already.

    >>> Features(np.zeros((2, 3), np.float32), np.array([0, 1]), ["cat", "dog"], False).x.shape
    (2, 3)
    """

    x: Any
    y: Any
    class_names: list[str]
    cached: bool


class AllClasses(ImageDataModule):
    """The test images with the classes that they have, for episodes; without splits all images of class folders.

    >>> AllClasses("/nowhere").samples("test")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: ...
    """

    def __init__(self, folder: str | os.PathLike[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.folder = str(root_folder(str(folder)))

    def index(self) -> Index:
        places = split_places(self.folder)
        if places and "test" not in places:
            raise ZooError(
                f"{self.folder} has folders of splits, but no test folder, which episodes draw from: name the folder "
                "whose class folders they are to draw from"
            )
        place = places.get("test", self.folder)
        names = list_classes(place)
        return Index(names, {"test": scan(place, names)})


def class_folders(folder: str | os.PathLike[str], whole: bool = False, **kwargs: Any) -> ImageDataModule:
    """Read class folders: ``train`` and ``test`` folders of them, or, for episodes, one split with classes of its own.

    Args:
        folder: holds a folder for each class, or folders ``train`` and ``test`` of such folders.
        whole: take the test folder as it is, whatever classes the training folder has; without splits all images.
        kwargs: arguments of the data module.

    >>> class_folders("/nowhere", whole=True)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: there is no folder '/nowhere'
    """
    if not root_folder(str(folder)).is_dir():
        raise ZooError(f"there is no folder {str(folder)!r}")
    return AllClasses(folder, **kwargs) if whole else ImageFolder(str(folder), val_fraction=0, **kwargs)


def extract(
    model: GCPNet,
    data: ImageDataModule,
    split: str,
    device: str = "cpu",
    folder: Path | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """Compute the features of a split, or read them from the disk.

    They are kept by the hash of the network's weights and configuration, of the images (paths, sizes and times of
    change; in shards their checksums), of their labels, and of the preprocessing. Images are taken as in an evaluation,
    those of the training split too.

    Args:
        model: the network; its classifier is not used.
        data: whose images; its preprocessing counts.
        split: ``train``, ``val`` or ``test``.
        device: to compute on.
        folder: of the kept features; null: ``features`` in :func:`gcpzoo.paths.cache`.
        advance: called with the number of images done and of all.

    Raises:
        ZooError: if there is no such split, an image cannot be read, or a feature is not finite.

    >>> import tempfile
    >>> from gcpzoo.data import Digits
    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "gap", 10, until="layer1")
    >>> features = extract(model, Digits(image_size=8, batch_size=180), "test", folder=Path(tempfile.mkdtemp()))
    >>> features.x.shape, features.cached
    ((360, 64), False)
    """
    samples = data.samples(split)
    key = _key(model, data.preprocessing, samples)
    path = (folder or cache() / "features") / f"{key}.safetensors"
    kept = _read(path)
    if kept is not None:
        return Features(kept["x"], kept["y"], data.class_names, True)
    data.screen({split: samples})
    x = _compute(model, data, samples, device, lambda n: advance(n, len(samples)))
    y = np.array([label for _, label in samples], np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file({"x": x, "y": y}, temporary)
    return Features(x, y, data.class_names, False)


def _compute(
    model: GCPNet, data: ImageDataModule, samples: Sequence[Sample], device: str, advance: Callable[[int], None]
) -> Any:
    found: list[Tensor] = []
    for outputs in over_images(
        model,
        vectors,
        [image for image, _ in samples],
        read=data.reader(train=False),
        rule=data.preprocessing,
        batch_size=data.batch_size,
        workers=data.workers,
        device=device,
    ):
        for fault in outputs.faults.values():
            raise ImageError(fault)
        found += outputs.values.values()
        advance(len(found))
    return torch.stack(found).numpy()


def _read(path: Path) -> dict[str, Any] | None:
    """Read kept features; nothing where there are none, or the file is damaged."""
    try:
        kept = load_file(path)
    except (OSError, SafetensorError):
        return None
    return kept if {"x", "y"} <= kept.keys() else None


def _key(model: GCPNet, rule: Preprocessing, samples: Sequence[tuple[Any, int]]) -> str:
    """Hash everything that the features depend on."""
    digest = hashlib.sha256()

    def add(*values: Any) -> None:
        digest.update(json.dumps(values, default=str).encode() + b"\n")

    root = getattr(model.head, "root", None)  # switched by hand, the configuration does not know it
    add(FORMAT, fingerprint(model, classifier=False), root, rule.to_dict(), torch.__version__)
    for image, label in samples:
        if isinstance(image, Tensor):
            add(list(image.shape), label)
            digest.update(image.contiguous().numpy().tobytes())
        elif isinstance(image, ShardedFile):
            add(os.path.abspath(image.shard), image.member, image.size, image.crc32, label)
        elif isinstance(image, str) and (state := file_state(image)) is not None:
            add(os.path.abspath(image), *state, label)
        else:
            add(repr(image), label)
    return digest.hexdigest()

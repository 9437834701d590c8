"""ImageNet-1k (ILSVRC 2012)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gcpzoo.data.base import ImageDataModule, Index, Sample
from gcpzoo.data.classes import imagenet_classes, is_wnid
from gcpzoo.data.folder import list_classes, scan
from gcpzoo.data.scan import root_folder
from gcpzoo.data.shards import read_shards
from gcpzoo.errors import ZooError

SPLITS = ("train", "val")
HINT = "expected ROOT/train/n01440764/… and ROOT/val/n01440764/…"


class ImageNet(ImageDataModule):
    """ImageNet-1k: 1,000 classes, 1,281,167 training and 50,000 validation images, in a folder for each wnid.

    Labels are the positions of the sorted wnids, as in every released model. If only some of the classes have folders,
    they keep those labels (to train on such a subset alone, use ``ImageFolder``). Folders that are not named by wnids
    are classes of their own, by sorted name. The official validation images serve as ``val`` and as ``test``: the
    test labels are not public, and papers report the validation figures.

    Args:
        root: folder that holds ``train`` and ``val``; for evaluation ``val`` alone is enough. Or the shards that
            ``gcpzoo shard`` made of such a folder.

    Source: Russakovsky et al., IJCV 2015. The wnids are timm's list.

    >>> data = ImageNet("/data/imagenet")
    >>> data.preprocessing.resize, data.preprocessing.crop
    (256, 224)
    """

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = root_folder(root)

    def index(self) -> Index:
        """List the images of the class folders, or of the shards.

        Raises:
            ZooError: if folders are missing, empty or unknown.

        >>> ImageNet("/nowhere").index()
        Traceback (most recent call last):
        gcpzoo.errors.ZooError: ImageNet: there is no folder /nowhere; expected ROOT/train/n01440764/… and ...
        """
        root = str(self.root)
        if not os.path.isdir(root):
            raise ZooError(f"{self.name}: there is no folder {root}; {HINT}")
        found: Mapping[str, str] | None = read_shards(root)
        if found is None:
            found = {name: path for name in SPLITS if os.path.isdir(path := os.path.join(root, name))}
        places = [(split, found[split]) for split in SPLITS if split in found]
        if not places:
            raise ZooError(f"{self.name}: {root} has neither train nor val; {HINT}")
        names = list_classes(places[0][1])
        classes = list(imagenet_classes()) if any(map(is_wnid, names)) else names
        splits: dict[str, list[Sample]] = {split: scan(place, classes) for split, place in places}
        if "val" in splits:
            splits["test"] = splits["val"]
        return Index(classes, splits)

"""ImageNet-1k (ILSVRC 2012)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from gcpzoo.data.base import ImageDataModule, Index, Sample
from gcpzoo.data.folder import scan
from gcpzoo.data.images import list_folders
from gcpzoo.errors import ZooError

HINT = "expected ROOT/train/n01440764/… and ROOT/val/n01440764/…"
WNID = re.compile(r"n\d{8}")


class ImageNet(ImageDataModule):
    """ImageNet-1k: 1,000 classes, 1,281,167 training and 50,000 validation images, in a folder for each wnid.

    Labels are the positions of the sorted wnids, as in every released model; where only some of the classes' folders
    exist, they keep those labels (to train on such a subset for itself, take ``ImageFolder``). Folders that are not
    named by wnids are classes of their own, by sorted name. The official validation images serve as ``val`` and as
    ``test``: the test labels are not public, and papers report the validation figures.

    Args:
        root: folder that holds ``train`` and ``val``; for evaluation ``val`` alone will do.

    Source: Russakovsky et al., IJCV 2015. Wnids and names are timm's list.
    """

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root).expanduser()

    def index(self) -> Index:
        root = str(self.root)
        if not os.path.isdir(root):
            raise ZooError(f"{self.name}: there is no folder {root}; {HINT}")
        folders = {
            split: os.path.join(root, split) for split in ("train", "val") if os.path.isdir(os.path.join(root, split))
        }
        if not folders:
            raise ZooError(f"{self.name}: {root} has neither train nor val; {HINT}")
        names = list_folders(next(iter(folders.values())))
        official = any(WNID.fullmatch(name) for name in names)
        classes, titles = imagenet_classes() if official else (names, names)
        splits: dict[str, list[Sample]] = {split: scan(folder, classes) for split, folder in folders.items()}
        if "val" in splits:
            splits["test"] = splits["val"]
        return Index(titles, splits)


def imagenet_classes() -> tuple[list[str], list[str]]:
    """The 1,000 wnids in the order of the labels, and their names such as ``tench, Tinca tinca``."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return list(info.label_names()), list(info.label_descriptions())

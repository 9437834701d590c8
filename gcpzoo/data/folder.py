"""The user's own images, a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from gcpzoo.data.base import ImageDataModule, Index, Sample
from gcpzoo.data.classes import check_class_names
from gcpzoo.data.images import list_folders, list_images, root_folder
from gcpzoo.data.splits import hold_out
from gcpzoo.errors import ZooError, printable

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


class ImageFolder(ImageDataModule):
    """Images in folders named after their classes: ``ROOT/{train,val,test}/CLASS/…``, or ``ROOT/CLASS/…``.

    In the second form, a stratified ``test_fraction`` of the images becomes the test split, at random by ``seed``.
    Labels follow the sorted names of the training folders; the other splits are mapped by name: they may lack classes,
    but not add any.

    Args:
        root: the folder.
        classes: ids of the classes in the order of the labels, e.g. those of a loaded model; null: those found.
        val_fraction: if there is no ``val`` folder: share of the training images to hold out as validation split.
        test_fraction: if there are class folders only: share of all images to set aside for the test.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("train/cat/1.png", "train/dog/1.png", "test/cat/1.png"):
    ...         path = Path(root, name)
    ...         path.parent.mkdir(parents=True)
    ...         Image.new("RGB", (32, 32)).save(path)
    ...     data = ImageFolder(root, val_fraction=0)
    ...     data.class_names, len(data.samples("test"))
    (['cat', 'dog'], 1)
    """

    def __init__(
        self,
        root: str,
        classes: list[str] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(val_fraction=val_fraction, **kwargs)
        if not 0 < test_fraction < 1:
            raise ZooError(f"test_fraction must be between 0 and 1, got {test_fraction}")
        self.root = root_folder(root)
        self.classes, self.test_fraction, self.set_aside = classes, test_fraction, 0.0

    def index(self) -> Index:
        """List the images of the class folders.

        Raises:
            ZooError: if folders are missing or empty, or a class is unknown.

        >>> ImageFolder("/nowhere").index()
        Traceback (most recent call last):
        gcpzoo.errors.ZooError: ImageFolder: there is no folder /nowhere; expected train, val and test folders, or ...
        """
        root = str(self.root)
        if not os.path.isdir(root):
            raise ZooError(
                f"{self.name}: there is no folder {root}; expected train, val and test folders, or class folders"
            )
        found = list_folders(root)
        folders = {split: name for split, names in SPLITS.items() for name in names if name in found}
        if folders:
            own = self.classes or list_folders(os.path.join(root, next(iter(folders.values()))))
            splits = {split: scan(os.path.join(root, name), own) for split, name in folders.items()}
        else:
            own = self.classes or found
            self.set_aside = self.test_fraction
            remedy = "change test_fraction, or put the images into a train and a test folder"
            train, test = hold_out(scan(root, own), own, self.test_fraction, self.seed, remedy)
            splits = {"train": train, "test": test}
            rank_zero_info(f"{self.name}: {len(test):,} of {len(train) + len(test):,} images set aside for the test")
        if len(own) < 2:
            raise ZooError(f"{self.name}: at least two classes are needed, got one class only ({own[0]}) in {root}")
        for split, samples in splits.items():
            absent = len(own) - len({label for _, label in samples})
            if absent and split == "train":
                raise ZooError(
                    f"{self.name}: {absent} of {len(own)} classes have no folder in {root}/{folders.get('train', '')}"
                )
            if absent:
                rank_zero_info(
                    f"{self.name}: the {split} split has images of {len(own) - absent} of {len(own)} classes"
                )
        return Index(own, splits)

    def record(self) -> dict[str, Any]:
        """Describe the data as :meth:`ImageDataModule.record` does, with ``test_fraction``.

        >>> from unittest.mock import patch
        >>> with patch.object(ImageFolder, "index", lambda self: Index(["cat", "dog"], {"test": []})):
        ...     ImageFolder("/data").record()["test_fraction"]
        0.0
        """
        return super().record() | {"test_fraction": self.set_aside}


def scan(folder: str, classes: Sequence[str]) -> list[Sample]:
    """List ``(path, label)`` of all images in the class folders of ``folder``; labels are positions in ``classes``.

    Raises:
        ZooError: if there are no class folders, ``classes`` lacks one of them, or one has no images or no valid name.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("cat", "dog"):
    ...         Path(root, name).mkdir()
    ...         Path(root, name, "1.png").touch()
    ...     [(Path(path).parent.name, label) for path, label in scan(root, ["dog", "cat"])]
    [('cat', 1), ('dog', 0)]
    """
    names = list_folders(folder)
    if not names:
        images, _ = list_images(folder)
        what = f"holds {len(images):,} images but no class folders" if images else "is empty"
        raise ZooError(f"{folder} {what}; put the images of each class into a folder named after it")
    check_class_names(names, folder)
    label = {name: i for i, name in enumerate(classes)}
    unknown = [name for name in names if name not in label]
    if unknown:
        raise ZooError(
            f"{folder}: {len(unknown)} of {len(names)} folders are none of the {len(classes)} classes: "
            f"{', '.join(unknown[:10])}; a class must be in the training folders (or in `classes`)"
        )
    samples: list[Sample] = []
    empty: list[str] = []
    ignored: list[str] = []
    for name in names:
        images, others = list_images(os.path.join(folder, name))
        samples += [(path, label[name]) for path in images]
        ignored += others
        if not images:
            empty.append(name)
    if empty:
        raise ZooError(
            f"{folder}: {len(empty)} of {len(names)} class folders have no images: {', '.join(empty[:10])}; "
            "fill or delete them"
        )
    if ignored:
        few = ", ".join(os.path.relpath(path, folder) for path in ignored[:5])
        rank_zero_warn(
            f"{folder}: {len(ignored):,} files do not have an image suffix and are ignored, such as {printable(few)}"
        )
    return samples

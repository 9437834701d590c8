"""The user's own images, a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from gcpzoo.data.base import ImageDataModule, Index, Sample
from gcpzoo.data.classes import check_class_names, check_spelling, spelling
from gcpzoo.data.scan import (
    Found,
    in_threads,
    list_entries,
    list_folders,
    name_files,
    refuse_unreadable,
    root_folder,
    same_files,
    scan_images,
    split_folders,
)
from gcpzoo.data.seen import FILES, number_files, refuse_other_files
from gcpzoo.data.shards import ShardedSplit, read_shards
from gcpzoo.data.splits import hold_out, take_fold
from gcpzoo.errors import ZooError, printable


class ImageFolder(ImageDataModule):
    """Images in folders named after their classes: ``ROOT/{train,val,test}/CLASS/…``, or ``ROOT/CLASS/…``.

    ``ROOT`` may also hold the shards that ``gcpzoo shard`` makes of the first form.
    In the second form, a stratified ``test_fraction`` of the images becomes the test split, at random by ``seed``.
    Labels follow the sorted names of the training folders; the other splits are mapped by name: they may lack classes,
    but not add any.

    Args:
        root: the folder.
        classes: ids of the classes in the order of the labels, e.g. those of a loaded model; null: those found.
        val_fraction: if there is no ``val`` folder: share of the training images to hold out as validation split.
        test_fraction: if there are class folders only: share of all images to set aside for the test.
        folds: if there are class folders only: cut all images into so many parts of the same shares of classes, of
            which one is the test split; null: ``test_fraction`` is set aside.
        fold: number of that part, from 0.

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
        folds: int | None = None,
        fold: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(val_fraction=val_fraction, **kwargs)
        if not 0 < test_fraction < 1:
            raise ZooError(f"test_fraction must be between 0 and 1, got {test_fraction}")
        if folds is not None and not (folds >= 2 and 0 <= fold < folds):
            raise ZooError(f"fold must be from 0 to one less than folds, which is at least 2, got {fold} of {folds}")
        self.folds, self.fold = folds, fold
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
        places = split_places(root)
        if places and self.folds:
            raise ZooError(f"{self.name}: folds need class folders, but {root} has folders of splits: leave out folds")
        if places:
            own = self.classes or list_classes(next(iter(places.values())))
            splits = {split: scan(place, own) for split, place in places.items()}
        else:
            own = self.classes or list_folders(root)
            train, test = self._set_aside(scan(root, own), own)
            splits = {"train": train, "test": test}
            rank_zero_info(f"{self.name}: {len(test):,} of {len(train) + len(test):,} images set aside for the test")
        if len(own) < 2:
            raise ZooError(f"{self.name}: at least two classes are needed, got one class only ({own[0]}) in {root}")
        for split, samples in splits.items():
            absent = len(own) - len({label for _, label in samples})
            if absent and split == "train":
                raise ZooError(
                    f"{self.name}: {absent} of {len(own)} classes have no folder in {places.get('train', root)}"
                )
            if absent:
                rank_zero_info(
                    f"{self.name}: the {split} split has images of {len(own) - absent} of {len(own)} classes"
                )
        return Index(own, splits)

    def _set_aside(self, samples: list[Sample], own: Sequence[str]) -> tuple[list[Sample], list[Sample]]:
        """Split all images into training and test images."""
        if self.folds:
            self.set_aside = 1 / self.folds
            return take_fold(samples, own, self.folds, self.fold, self.seed)
        self.set_aside = self.test_fraction
        remedy = "change test_fraction, or put the images into a train and a test folder"
        return hold_out(samples, own, self.test_fraction, self.seed, remedy)

    def record(self) -> dict[str, Any]:
        """Describe the data as :meth:`ImageDataModule.record` does, with ``test_fraction`` and the fold.

        >>> from unittest.mock import patch
        >>> with patch.object(ImageFolder, "index", lambda self: Index(["cat", "dog"], {"test": []})):
        ...     ImageFolder("/data").record()["test_fraction"]
        0.0
        """
        fold = {"folds": self.folds, "fold": self.fold} if self.folds else {}
        return super().record() | {"test_fraction": self.set_aside, **fold}

    @cached_property
    def _files(self) -> dict[str, Tensor]:
        return {split: number_files(samples, str(self.root)) for split, samples in self._splits.items()}

    def state_dict(self) -> dict[str, Any]:
        """Keep which files each split has, beside what every data module keeps.

        >>> from unittest.mock import patch
        >>> with patch.object(ImageFolder, "index", lambda self: Index(["cat", "dog"], {"train": []})):
        ...     ImageFolder("/data", val_fraction=0).state_dict()
        {'files': {'train': tensor([], dtype=torch.int64)}}
        """
        return super().state_dict() | {FILES: self._files}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at this place of the epoch, if the folder still has the same files.

        Raises:
            ZooError: if a split would have others, or others are left out.

        >>> ImageFolder("/data").load_state_dict({})
        """
        super().load_state_dict({key: value for key, value in state_dict.items() if key != FILES})
        if self.trainer is None or self.trainer.state.fn == "fit":
            self.check_files(state_dict.get(FILES, {}))

    def check_files(self, before: Mapping[str, Tensor]) -> None:
        """Refuse to go on with a training of other files.

        Args:
            before: numbers of the files of each split then; empty: not known, as older checkpoints lack them.

        Raises:
            ZooError: if a split would have others.

        >>> ImageFolder("/data").check_files({})
        """
        if before:
            refuse_other_files(before, self._files, str(self.root))


def split_places(root: str) -> Mapping[str, str]:
    """Give the path, or the shards, of each split, and warn of what is ignored beside them; empty without splits.

    >>> split_places(os.devnull + "/nowhere")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: ...
    """
    shards: Mapping[str, str] | None = read_shards(root)
    if shards is not None:
        return shards
    folders, beside = split_folders(root)
    if beside:
        _warn_of_ignored(root, beside)
    return {split: os.path.join(root, name) for split, name in folders.items()}


def list_classes(place: str) -> list[str]:
    """List the ids of the classes of a split, sorted: its folders, or those of its shards.

    >>> list_classes(ShardedSplit("out/train", {"cat": [], "dog": []}))
    ['cat', 'dog']
    """
    return sorted(place.images) if isinstance(place, ShardedSplit) else list_folders(place)


def scan(folder: str, classes: Sequence[str]) -> list[Sample]:
    """List ``(path, label)`` of all images in the class folders of ``folder``; labels are positions in ``classes``.

    The folder may be a :class:`~gcpzoo.data.shards.ShardedSplit`.
    A file that has several paths, by links, is listed by the first of them.

    Raises:
        ZooError: if there are no class folders, ``classes`` lacks one of them, one has no images or no valid name, a
            folder cannot be read, or a file is in two classes.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("cat", "dog"):
    ...         Path(root, name).mkdir()
    ...         Path(root, name, "1.png").touch()
    ...     [(Path(path).parent.name, label) for path, label in scan(root, ["dog", "cat"])]
    [('cat', 1), ('dog', 0)]
    """
    classes_of, aside = (folder.images, Found()) if isinstance(folder, ShardedSplit) else scan_classes(folder)
    refuse_unreadable(aside.unreadable)
    names = list(classes_of)
    if not names:
        images = scan_images(folder).images
        what = f"holds {len(images):,} images but no class folders" if images else "is empty"
        raise ZooError(f"{folder} {what}; put the images of each class into a folder named after it")
    check_class_names(names, folder)
    if pairs := check_spelling(names, folder):
        rank_zero_warn(f"{folder}: classes whose names differ in case or spacing only: {printable('; '.join(pairs))}")
    label = {name: i for i, name in enumerate(classes)}
    unknown = [name for name in names if name not in label]
    if unknown:
        usual = {spelling(name): name for name in classes}
        near = [f"{name!a} is {usual[spelling(name)]!a} there" for name in unknown if spelling(name) in usual]
        hint = f"; {', '.join(near[:3])}" if near else ""
        raise ZooError(
            f"{folder}: {len(unknown)} of {len(names)} folders are none of the {len(classes)} classes: "
            f"{', '.join(unknown[:10])}; a class must be in the training folders (or in `classes`){hint}"
        )
    empty = [name for name in names if not classes_of[name]]
    if empty:
        raise ZooError(
            f"{folder}: {len(empty)} of {len(names)} class folders have no images: {', '.join(empty[:10])}; "
            "fill or delete them"
        )
    samples = [(path, label[name]) for name in names for path in classes_of[name]]
    again = _second_paths(samples, folder)
    if ignored := aside.ignored | again:
        _warn_of_ignored(folder, ignored)
    return [sample for sample in samples if sample[0] not in again] if again else samples


def scan_classes(folder: str) -> tuple[dict[str, list[str]], Found]:
    """Find the images of each class folder, and all that is ignored or cannot be read in ``folder``.

    >>> scan_classes("/nowhere")[1].unreadable
    {'/nowhere': 'No such file or directory'}
    """
    names, files, aside = list_entries(folder)
    for name in files:
        aside.ignored[os.path.join(folder, name)] = "in no class folder"
    found = in_threads(scan_images, [os.path.join(folder, name) for name in names])
    for part in found:
        aside.ignored |= part.ignored
        aside.unreadable |= part.unreadable
    return {name: part.images for name, part in zip(names, found)}, aside


def _second_paths(samples: Sequence[Sample], folder: str) -> dict[str, str]:
    """Give the paths of files that have another one before, with a reason; a file in two classes is refused."""
    again: dict[str, str] = {}
    for group in same_files([path for path, _ in samples]):
        first, *others = (samples[i] for i in group)
        name = os.path.relpath(first[0], folder)
        for path, label in others:
            if label != first[1]:
                raise ZooError(
                    f"{folder}: one file is in two classes, {name} and {os.path.relpath(path, folder)}; delete one"
                )
            again[path] = f"the same file as {name}"
    return again


def _warn_of_ignored(folder: str, ignored: dict[str, str]) -> None:
    count = f"{len(ignored):,} {'entries are' if len(ignored) > 1 else 'entry is'} ignored"
    rank_zero_warn(f"{folder}: {count}: {printable(name_files(ignored, folder, most=20))}")

"""What the choice of settings needs to know of a folder of images, found without decoding all of them."""

from __future__ import annotations

import statistics
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

from gcpzoo.data import ImageFolder
from gcpzoo.data.folder import scan
from gcpzoo.data.images import examine
from gcpzoo.data.scan import in_threads, list_folders
from gcpzoo.data.splits import hold_out
from gcpzoo.errors import ZooError
from gcpzoo.experiments.folder.advice import TEST_FRACTIONS, VAL_FRACTIONS

SAMPLED = 64


@dataclass(frozen=True)
class FolderSurvey:
    """A folder of images as a training sees it.

    Attributes:
        root: the folder.
        images: of each split; ``test`` set aside already where the folder has class folders only.
        per_class: training images of each class, most first.
        shorter_side: median over sampled images, in pixels; 0 where none of them can be read.
        unreadable: how many of the sampled images are broken.
        test_fraction: share set aside for the test; 0: the folder has a test split.
        val_fraction: share of the training images to hold out; 0: the folder has a validation split, or the classes
            are too small for one.

    >>> FolderSurvey("x", {"train": 9, "test": 2}, {"cat": 7, "dog": 2}, 200, 0, 0.2, 0.1).ratio
    3.5
    """

    root: str
    images: dict[str, int]
    per_class: dict[str, int]
    shorter_side: float
    unreadable: int
    test_fraction: float
    val_fraction: float

    @property
    def ratio(self) -> float:
        """Images of the largest class for one of the smallest."""
        return max(self.per_class.values()) / min(self.per_class.values())


def survey_folder(root: str, test_fraction: float | None = None, val_fraction: float | None = None) -> FolderSurvey:
    """Count the images of the classes, look at the sizes of a few, and find shares that can be held out.

    Args:
        root: class folders, or train, val and test folders of them.
        test_fraction: share to set aside for the test; null: the usual one, or more where classes are small.
        val_fraction: share to hold out for validation; likewise.

    Raises:
        ZooError: if the folder cannot be trained on; the message says why.

    >>> survey_folder("/nowhere")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: ImageFolder: there is no folder /nowhere; expected train, val and test folders, or ...
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the training says it of the same folder
        data = _read(root, (test_fraction,) if test_fraction is not None else TEST_FRACTIONS)
    train = data.samples("train")
    if "test" not in (splits := data.record()["images"]):
        raise ZooError(
            f"{root} has no test folder to measure the training on: rename its val folder to test, and a share of the "
            "training images is held out for validation"
        )
    chosen = 0.0 if "val" in splits else _val_fraction(train, data.class_names, val_fraction)
    step = max(1, len(train) // SAMPLED)
    found = in_threads(examine, [path for path, _ in train[::step]])
    sides = [min(c.width, c.height) for c in found if not c.fault]
    counts = Counter(label for _, label in train)
    return FolderSurvey(
        root=root,
        images=splits,
        per_class={data.class_names[label]: n for label, n in counts.most_common()},
        shorter_side=statistics.median(sides) if sides else 0,
        unreadable=sum(bool(c.fault) for c in found),
        test_fraction=data.set_aside,
        val_fraction=chosen,
    )


def _read(root: str, fractions: tuple[float, ...]) -> ImageFolder:
    """Index the folder with the first share for the test with which every class is in both parts."""
    for fraction in fractions:
        data = ImageFolder(root, test_fraction=fraction, val_fraction=0, check=False)
        try:
            data.samples("train")
            return data
        except ZooError as error:
            if "cannot hold out" not in str(error) or fraction == fractions[-1]:
                raise
            _refuse_single_images(root)
    raise AssertionError("no share to try")


def _refuse_single_images(root: str) -> None:
    """Refuse classes that cannot be both learnt and tested; no share changes that."""
    names = list_folders(root)
    counts = Counter(label for _, label in scan(root, names))
    if single := [names[label] for label, n in counts.items() if n == 1]:
        raise ZooError(
            f"{root}: {len(single)} of {len(names)} classes have one image only ({', '.join(single[:10])}), but each "
            "needs one to learn from and one to test: add images, or move these folders away"
        )


def _val_fraction(train: Any, names: list[str], asked: float | None) -> float:
    if asked is not None:
        return asked
    for fraction in VAL_FRACTIONS:
        try:
            hold_out(train, names, fraction, 0, keep_single=True)
            return fraction
        except ZooError:
            pass
    return 0.0

"""Look at every image before a run starts: what cannot be read stops it or is left out, on all processes alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import distributed

from gcpzoo.data.images import find_faults, refuse_faults
from gcpzoo.data.loading import Sample
from gcpzoo.data.scan import name_files, same_files
from gcpzoo.errors import ZooError, printable, unknown_name
from gcpzoo.models.preprocessing import Preprocessing

STAGES = {"fit": "train", "validate": "val", "test": "test", "predict": "test"}
ON_ERROR = ("stop", "skip")
T = TypeVar("T")


@dataclass
class Index:
    """The images of a data set: ids of the classes in label order, and ``(path, label)`` pairs of each split.

    >>> Index(["cat", "dog"], {"train": [("1.png", 0), ("2.png", 1)]}).splits["train"][1]
    ('2.png', 1)
    """

    class_names: list[str]
    splits: dict[str, list[Sample]]


class ScreenedDataModule(LightningDataModule):
    """A data module that decodes its image files before the start.

    Args:
        check: whether it does.
        on_error: ``stop``: files that cannot be read are an error, which names them; ``skip``: they are left out.

    Raises:
        ZooError: if files are to be left out but not looked at.

    >>> ScreenedDataModule(check=False, on_error="skip")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: on_error 'skip' needs check: only decoding finds the files to leave out
    """

    root: Path | None = None
    remedy = "replace or delete them"
    progress: Callable[[int], Any] = staticmethod(lambda n: None)
    """Is told now and then how many more files were looked at."""
    preprocessing: Preprocessing = Preprocessing(resize=None, crop=None)
    """What the images go through, which those that are too long and thin cannot."""

    def __init__(self, check: bool = True, on_error: str = "stop") -> None:
        super().__init__()
        if on_error not in ON_ERROR:
            raise unknown_name("on_error", str(on_error), ON_ERROR)
        if on_error == "skip" and not check:
            raise ZooError("on_error 'skip' needs check: only decoding finds the files to leave out")
        self.check, self.on_error = check, on_error
        self.left_out: dict[str, str] = {}
        self._screened: set[str] = set()

    def setup(self: Any, stage: str | None = None) -> None:
        """Check the image files of the stage; before training those of all splits, so that none ends a long run.

        Raises:
            ZooError: if the split that the stage needs is missing, or files cannot be read.

        >>> from gcpzoo.data import Digits
        >>> Digits().setup("validate")
        Traceback (most recent call last):
        gcpzoo.errors.ZooError: Digits: no val split; available: train, test; set val_fraction to hold one out
        """
        if stage is not None:
            self.samples(STAGES[stage])  # the split must exist
        splits = tuple(self._splits) if stage in (None, "fit") else (STAGES[stage],)
        self.screen({split: self.samples(split) for split in splits})

    def screen(self, splits: Mapping[str, list[tuple[Any, int]]]) -> None:
        """Decode the files of splits that were not looked at before; the first process does, and tells the others.

        Raises:
            ImageError: if there are unreadable files and ``on_error`` is ``stop``.
            ZooError: if a class of the training split, or a whole split, would have no image left.

        >>> ScreenedDataModule().screen({"train": []})
        """
        new = {split: samples for split, samples in splits.items() if split not in self._screened}
        self._screened.update(new)
        if not self.check or self.root is None or not new:
            return
        paths = list(dict.fromkeys(path for samples in new.values() for path, _ in samples))
        faults = from_first_process(lambda: find_faults(paths, self.progress, self.preprocessing.misfit))
        if self.on_error == "stop":
            remedy = f"{self.remedy}, or leave them out (on_error: skip; --skip-corrupt)"
            refuse_faults(faults, len(paths), str(self.root), remedy)
        self.left_out |= faults
        for split, samples in new.items():
            kept = self.keep(samples)
            gone = {label for _, label in samples} - {label for _, label in kept}
            if (samples and not kept) or (split == "train" and gone):
                what = "no image" if not kept else f"no image of {len(gone)} of the classes"
                names = name_files(faults, str(self.root), most=10)
                raise ZooError(f"{self.root}: {what} of the {split} split can be read: {names}; {self.remedy}")
        if faults:
            names = name_files(faults, str(self.root), most=10)
            rank_zero_warn(f"{len(faults):,} of {len(paths):,} images cannot be read, left out: {printable(names)}")

    def keep(self, samples: list[tuple[Any, int]]) -> list[tuple[Any, int]]:
        """Return the samples that are not left out.

        >>> data = ScreenedDataModule(on_error="skip")
        >>> data.left_out = {"cut.png": "truncated"}
        >>> data.keep([("cut.png", 0), ("good.png", 0)])
        [('good.png', 0)]
        """
        return [s for s in samples if s[0] not in self.left_out] if self.left_out else samples

    def left_out_record(self) -> dict[str, str]:
        """Name the files left out by their path in ``root``, each with the reason.

        >>> ScreenedDataModule().left_out_record()
        {}
        """
        return {os.path.relpath(path, self.root or "."): why for path, why in sorted(self.left_out.items())}

    def state_dict(self) -> dict[str, Any]:
        return {"left_out": list(self.left_out_record())} if self.on_error == "skip" else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare with the run that goes on: other images would make it another run.

        Raises:
            ZooError: if other files are left out now than when the checkpoint was written.
        """
        if self.trainer is not None and self.trainer.state.fn != "fit":
            return  # an evaluation, perhaps of other data
        before, now = set(state_dict.get("left_out", ())), set(self.left_out_record())
        if before != now:
            names = ", ".join(sorted(before ^ now)[:10])
            raise ZooError(
                f"{self.root}: {len(now - before)} images can no longer be read and {len(before - now)} can be read "
                f"again since this run began ({names}): restore them as they were, or start a new run"
            )


def from_first_process(find: Callable[[], T]) -> T:
    """Return what the first process finds, on all processes; an error there is raised on all.

    >>> from_first_process(lambda: 3)
    3
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return find()
    answer: list[Any] = [None, None]
    if distributed.get_rank() == 0:
        try:
            answer[0] = find()
        except Exception as error:
            answer[1] = error
    distributed.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    found: T = answer[0]
    return found


def check_labels(index: Index, name: str) -> None:
    """Refuse labels that are no class.

    Raises:
        ZooError: if there is one; the message names the image.

    >>> check_labels(Index(["cat", "dog"], {"train": [("1.png", 0), ("2.png", 2)]}), "ImageFolder")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: ImageFolder: labels must be between 0 and 1, got 2 for 2.png (train); correct the list ...
    """
    classes = range(len(index.class_names))
    for split, samples in index.splits.items():
        for i, (image, label) in enumerate(samples):
            if label not in classes:
                which = image if isinstance(image, str) else f"image {i}"
                raise ZooError(
                    f"{name}: labels must be between 0 and {len(classes) - 1}, got {label} for {which} ({split}); "
                    "correct the list of labels"
                )


def refuse_shared_files(splits: Mapping[str, Sequence[tuple[Any, int]]], root: str) -> None:
    """Refuse splits that share a file, by links or by name: figures measured on training images are worthless.

    Splits that are one and the same list are meant to be (ImageNet's ``val`` and ``test``).

    Raises:
        ZooError: if there is such a file.

    >>> refuse_shared_files({"train": [("/dev/null", 0)], "test": [("/dev/null", 1)]}, "/dev")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: /dev: 1 file is in more than one split: null (train) is null (test); delete all but one
    """
    distinct = {id(samples): split for split, samples in splits.items()}
    places = [(split, path) for split in distinct.values() for path, _ in splits[split]]
    shared = [group for group in same_files([path for _, path in places]) if len({places[i][0] for i in group}) > 1]
    if shared:
        few = [
            " is ".join(f"{os.path.relpath(places[i][1], root)} ({places[i][0]})" for i in group)
            for group in (sorted(group, key=lambda i: list(splits).index(places[i][0])) for group in shared[:5])
        ]
        more = f"; and {len(shared) - 5:,} more" if len(shared) > 5 else ""
        count = f"{len(shared):,} file{'s are' if len(shared) > 1 else ' is'}"
        raise ZooError(f"{root}: {count} in more than one split: {'; '.join(few)}{more}; delete all but one")

"""Look through a folder of images: what is broken, doubled, ignored, empty or out of balance."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gcpzoo.data.classes import check_class_names, check_spelling
from gcpzoo.data.folder import scan_classes
from gcpzoo.data.images import Contents, examine
from gcpzoo.data.scan import Found, in_threads, list_entries, scan_images, split_folders
from gcpzoo.data.shards import file_size, open_file, read_shards
from gcpzoo.errors import ZooError

IMBALANCE = 10
"""A class with at most this fraction (1 in 10) of the training images of the largest one is worth a warning."""


@dataclass
class Survey:
    """What :func:`survey` found; all paths are relative to ``root``.

    Args:
        root: the folder.
        classes: number of images that can be read of each class of each split; ``""`` where the folders name none.
        unreadable: reason for each file and folder that cannot be read.
        ignored: reason for each file and folder that no command reads.
        empty_classes: class folders without any image.
        across_splits: groups of equal files, byte for byte, in more than one split.
        across_classes: groups of equal files in one split and more than one class.
        within: groups of equal files in one class of one split.
        names: what is wrong with the names of splits and classes.
        warnings: what deserves a look but is not wrong.
        width: least, median and largest width in pixels; ``height`` likewise.
        modes: number of images of each mode of Pillow; ``formats`` likewise.

    >>> Survey("data").wrong
    False
    """

    root: str
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    empty_classes: list[str] = field(default_factory=list)
    across_splits: list[list[str]] = field(default_factory=list)
    across_classes: list[list[str]] = field(default_factory=list)
    within: list[list[str]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    width: list[float] = field(default_factory=list)
    height: list[float] = field(default_factory=list)
    modes: dict[str, int] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Number of images that can be read.

        >>> Survey("data", classes={"train": {"cat": 3}, "test": {"cat": 1}}).images
        4
        """
        return sum(sum(counts.values()) for counts in self.classes.values())

    @property
    def wrong(self) -> bool:
        """Whether anything must be put right: all but ``within`` and ``warnings``.

        >>> Survey("data", ignored={"notes.txt": "no image suffix"}).wrong
        True
        """
        faults = (self.unreadable, self.ignored, self.empty_classes, self.across_splits, self.across_classes)
        return any(faults) or bool(self.names)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values.

        >>> Survey("data").to_dict()["ok"]
        True
        """
        return {"ok": not self.wrong, "images": self.images, **asdict(self)}


def survey(
    root: str, start: Callable[[int], Any] = lambda n: None, done: Callable[[int], Any] = lambda n: None
) -> Survey:
    """Decode every image of a folder and compare all files; the folder is laid out as for ``ImageFolder``,
    or holds shards.

    A folder without class folders is looked through as one class without a name.

    Args:
        root: the folder.
        start: is told how many images there are.
        done: is told now and then how many more images are done.

    Raises:
        ZooError: if there is no such folder.

    >>> survey("/nowhere")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: there is no folder '/nowhere'
    """
    if not os.path.isdir(root):
        raise ZooError(f"there is no folder {root!r}")
    report = Survey(root)
    images, aside = _find(root, report)
    places = [(split, name, path) for split, classes in images.items() for name in classes for path in classes[name]]
    paths = [path for _, _, path in places]
    start(len(paths))
    contents = in_threads(examine, paths, done)
    faults = {path: c.fault for path, c in zip(paths, contents) if c.fault}
    relative = os.path.relpath
    report.unreadable = {relative(path, root): why for path, why in (aside.unreadable | faults).items()}
    report.ignored = {relative(path, root): why for path, why in aside.ignored.items()}
    for split, classes in images.items():
        report.classes[split] = {name: sum(path not in faults for path in classes[name]) for name in classes}
        folders = {name: "/".join(part for part in (split, name) if part) for name in classes}
        report.empty_classes += [folders[name] for name, count in report.classes[split].items() if not count and name]
    if not paths:
        report.names.append("there are no images")
    _compare(report, [place for place in places if place[2] not in faults])
    _describe(report, [c for c in contents if not c.fault])
    _warn_of_imbalance(report)
    return report


def _find(root: str, report: Survey) -> tuple[dict[str, dict[str, list[str]]], Found]:
    """Give the image files of each class of each split, and note what is wrong with the names."""
    everything = Found()
    shards = read_shards(root)
    if shards is not None:
        return {split: dict(found.images) for split, found in shards.items()}, everything
    try:
        folders, everything.ignored = split_folders(root)
    except ZooError as error:
        report.names.append(str(error))
        folders = {}
    images: dict[str, dict[str, list[str]]] = {}
    for split, name in (folders or {"": ""}).items():
        folder = os.path.join(root, name) if name else root
        names, _, _ = list_entries(folder)
        if names:
            images[split], found = scan_classes(folder)
            try:
                check_class_names(names, name or root)
                pairs = check_spelling(names, name or root)
                report.warnings += [f"{name or root}: {pair} differ in case or spacing only" for pair in pairs]
            except ZooError as error:
                report.names.append(str(error))
        else:
            found = scan_images(folder)
            images[split] = {"": found.images}
            if name:
                report.names.append(f"{name} has no class folders")
            elif found.images:
                report.warnings.append("there are no class folders: for prediction only")
        everything.ignored |= found.ignored
        everything.unreadable |= found.unreadable
    trained = images.get("train", {})
    for split in images:
        if trained and (unknown := [name for name in images[split] if name not in trained]):
            report.names.append(f"classes of {split} that train lacks: {', '.join(unknown[:10])}")
    return images, everything


def _compare(report: Survey, places: Sequence[tuple[str, str, str]]) -> None:
    """Group equal files, by their hash where their sizes are equal."""
    sizes = in_threads(file_size, [path for _, _, path in places])
    often = Counter(sizes)
    candidates = [place for place, size in zip(places, sizes) if often[size] > 1]
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for place, digest in zip(candidates, in_threads(_digest, [path for _, _, path in candidates])):
        groups.setdefault(digest, []).append(place)
    for group in groups.values():
        if len(group) > 1:
            names = [os.path.relpath(path, report.root) for _, _, path in group]
            if len({split for split, _, _ in group}) > 1:
                report.across_splits.append(names)
            elif len({name for _, name, _ in group}) > 1:
                report.across_classes.append(names)
            else:
                report.within.append(names)


def _digest(path: str) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(report: Survey, contents: Sequence[Contents]) -> None:
    for key, values in (("width", [c.width for c in contents]), ("height", [c.height for c in contents])):
        if values:
            setattr(report, key, [min(values), statistics.median(values), max(values)])
    report.modes = dict(Counter(c.mode for c in contents).most_common())
    report.formats = dict(Counter(c.format for c in contents).most_common())


def _warn_of_imbalance(report: Survey) -> None:
    counts = report.classes.get("train") or report.classes.get("", {})
    most = max(counts.values(), default=0)
    few = [f"{name} ({count:,})" for name, count in counts.items() if 0 < count * IMBALANCE <= most]
    if few:
        report.warnings.append(
            f"{len(few)} of {len(counts)} classes have at most 1/{IMBALANCE} of the training images of the largest, "
            f"{most:,}: {', '.join(few[:10])}"
        )

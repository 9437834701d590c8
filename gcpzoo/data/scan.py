"""Which image files a folder holds, and what lies beside them: the one scan of every command.

Links are followed, each real folder is read once, and nothing is passed over without a name and a reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gcpzoo.data.classes import spelling
from gcpzoo.errors import ZooError
from gcpzoo.paths import file_id

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2")
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Names of the folders of each split."""
NAMED = 100
"""Most files that one message names; it counts all of them."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Found:
    """What a scan found: image files, and by path the reason why anything else is ignored or cannot be read.

    >>> Found(["cat/1.png"]).ignored
    {}
    """

    images: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def scan_images(folder: str) -> Found:
    """Find all image files below a folder, sorted by path.

    An image file is one whose suffix is in ``SUFFIXES``, in small or capital letters; pipes and broken links with such
    a name are among them, for the readers to refuse. Links to folders are followed after the real folders. Ignored are
    files without such a suffix, names that begin with a dot (in silence where they are no images), links to a folder
    that holds them or was read already, and folders that are named like an image but hold none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.JPG", "b.txt", "__c.png"):
    ...         Path(folder, name).touch()
    ...     os.symlink(folder, f"{folder}/loop")
    ...     found = scan_images(folder)
    ...     [Path(path).name for path in found.images], list(found.ignored.values())
    (['__c.png', 'a.JPG'], ['no image suffix', 'a link to a folder that holds it'])
    """
    found = Found()
    read: dict[tuple[int, int], str] = {}
    waiting, links = [folder], list[str]()
    while waiting or links:
        place = waiting.pop() if waiting else links.pop(0)
        key = file_id(place)
        if key in read:
            found.ignored[place] = f"the same folder as {os.path.relpath(read[key], folder)}"
            continue
        if key is not None:
            read[key] = place
        folders, files, aside = list_entries(place)
        found.ignored |= aside.ignored
        found.unreadable |= aside.unreadable
        for name in folders:
            path = os.path.join(place, name)
            (links if os.path.islink(path) else waiting).append(path)
        for name in files:
            path = os.path.join(place, name)
            if name.lower().endswith(SUFFIXES):
                found.images.append(path)
            else:
                found.ignored[path] = "no image suffix"
    found.images.sort()
    for place in read.values():
        if place != folder and place.lower().endswith(SUFFIXES):
            inside = f"{place}{os.sep}"
            if not any(path.startswith(inside) for path in found.images):
                found.ignored[place] = "a folder, not an image"
    found.ignored = dict(sorted(found.ignored.items()))
    return found


def list_entries(folder: str) -> tuple[list[str], list[str], Found]:
    """List the names of the folders and of the files directly in a folder, sorted, and what is neither.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("dog", "_cat", ".git"):
    ...         Path(folder, name).mkdir()
    ...     folders, files, aside = list_entries(folder)
    ...     folders, [Path(path).name for path in aside.ignored]
    (['_cat', 'dog'], ['.git'])
    """
    aside = Found()
    try:
        with os.scandir(folder) as entries:
            here = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        aside.unreadable[folder] = error.strerror or str(error)
        return [], [], aside
    folders, files = [], []
    for entry in here:
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link to itself
            is_folder = False
        if entry.name.startswith("."):
            if is_folder or entry.name.lower().endswith(SUFFIXES):
                aside.ignored[entry.path] = "its name begins with a dot"
        elif not is_folder:
            files.append(entry.name)
        elif entry.is_symlink() and _holds(entry.path, folder):
            aside.ignored[entry.path] = "a link to a folder that holds it"
        else:
            folders.append(entry.name)
    return folders, files, aside


def list_folders(folder: str) -> list[str]:
    """List the names of the folders directly in ``folder`` that can be classes or splits, sorted.

    Raises:
        ZooError: if ``folder`` cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("dog", "cat", ".git"):
    ...         Path(folder, name).mkdir()
    ...     list_folders(folder)
    ['cat', 'dog']
    """
    folders, _, aside = list_entries(folder)
    refuse_unreadable(aside.unreadable)
    return folders


def refuse_unreadable(folders: dict[str, str]) -> None:
    """Refuse to go on without folders that cannot be read: nobody knows what they hold.

    Raises:
        ZooError: if there are any.

    >>> refuse_unreadable({"train/cat": "Permission denied"})
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: 1 folder cannot be read: train/cat (Permission denied); allow it, or move it away
    """
    if folders:
        count = f"{len(folders):,} folder{'s' if len(folders) > 1 else ''}"
        raise ZooError(f"{count} cannot be read: {name_files(folders)}; allow it, or move it away")


def name_files(reasons: dict[str, str], root: str = "", most: int = NAMED) -> str:
    """Write files with their reasons into one line.

    Args:
        reasons: a reason for each path.
        root: folder that the paths are named in.
        most: how many are named; the rest is counted.

    >>> name_files({"/data/a.png": "empty file", "/data/b.png": "empty file"}, root="/data", most=1)
    'a.png (empty file); and 1 more'
    """
    names = [f"{os.path.relpath(path, root) if root else path} ({why})" for path, why in list(reasons.items())[:most]]
    more = [f"and {len(reasons) - most:,} more"] if len(reasons) > most else []
    return "; ".join([*names, *more])


def root_folder(root: str | Path) -> Path:
    """Expand ``~`` in the path of a data set's folder.

    Raises:
        ZooError: if it is empty, which would stand for the working directory.

    >>> root_folder("")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: root must be a folder, got ''
    """
    if not isinstance(root, str | Path) or not str(root).strip():
        raise ZooError(f"root must be a folder, got {root!r}")
    return Path(root).expanduser()


def split_folders(root: str) -> tuple[dict[str, str], dict[str, str]]:
    """Find the folders of the splits by their names in ``SPLITS``, and what is ignored beside them.

    Returns:
        The folder's name for each split, and a reason for each other path in ``root``. Without folders of splits both
        are empty: ``root`` holds the class folders.

    Raises:
        ZooError: if ``root`` cannot be read, or it is not clear which folder is a split's.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("train", "testing", "more"):
    ...         Path(root, name).mkdir()
    ...     folders, ignored = split_folders(root)
    ...     folders, list(ignored.values())
    ({'train': 'train', 'test': 'testing'}, ['beside the folders of the splits'])
    """
    found, files, aside = list_entries(root)
    refuse_unreadable(aside.unreadable)
    split_of = {name: split for split, names in SPLITS.items() for name in names}
    folders: dict[str, str] = {}
    for name in [name for name in found if name in split_of]:
        if split_of[name] in folders:
            raise ZooError(f"{root} has two folders for one split, {folders[split_of[name]]} and {name}; delete one")
        folders[split_of[name]] = name
    near = [name for name in found if name not in split_of and spelling(name) in split_of]
    if near and (folders or len(near) == len(found)):
        raise ZooError(f"{root}: write the names of splits in small letters, got {', '.join(near)}; rename them")
    if not folders:
        return {}, {}
    others = [name for name in (*found, *files) if name not in split_of]
    beside = {os.path.join(root, name): "beside the folders of the splits" for name in others}
    return {split: folders[split] for split in SPLITS if split in folders}, aside.ignored | beside


def refuse_inside(output: str | os.PathLike[str], root: str | os.PathLike[str]) -> None:
    """Refuse results in a folder of images: the next scan would take their plots for images of a class.

    Beside folders of splits they may be; what is there is ignored.

    Raises:
        ZooError: if ``output`` is ``root`` or lies below it.

    >>> refuse_inside("images/runs/mine", "images")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: output must lie outside of the images in 'images', where its plots would be taken ...
    """
    first = os.path.relpath(os.path.realpath(output), os.path.realpath(root)).split(os.sep)[0]
    splits = {name for names in SPLITS.values() for name in names if os.path.isdir(os.path.join(root, name))}
    if first != os.pardir and (not splits or first in splits):
        raise ZooError(
            f"output must lie outside of the images in {os.fspath(root)!r}, where its plots would be taken for "
            f"images, got {os.fspath(output)!r}: give another --output"
        )


def same_files(paths: Sequence[str]) -> list[list[int]]:
    """Find the positions in ``paths`` that lead to one file, by links of either kind.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "a").touch()
    ...     os.link(f"{folder}/a", f"{folder}/b")
    ...     same_files(["/nowhere", f"{folder}/a", "/nowhere", f"{folder}/b"])
    [[1, 3]]
    """
    first: dict[tuple[int, int], int] = {}
    groups: dict[int, list[int]] = {}
    for i, key in enumerate(in_threads(file_id, paths)):
        if key is not None and (earlier := first.setdefault(key, i)) != i:
            groups.setdefault(earlier, [earlier]).append(i)
    return list(groups.values())


def in_threads(function: Callable[[T], R], items: Sequence[T], done: Callable[[int], Any] = lambda n: None) -> list[R]:
    """Apply a function to all items in 16 threads, which wait for the disk or decode; the order is kept.

    Args:
        function: what to apply.
        items: what to apply it to.
        done: is told now and then how many more items are done.

    >>> in_threads(len, ["a", "bc"])
    [1, 2]
    """
    results: list[R] = []
    with ThreadPoolExecutor(16) as pool:
        try:
            starts = range(0, len(items), 64)  # by batches: a million futures would fill the memory
            for part in pool.map(lambda i: [function(item) for item in items[i : i + 64]], starts):
                results += part
                done(len(part))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _holds(link: str, folder: str) -> bool:
    """Say whether a link in ``folder`` leads to it or to a folder above it."""
    target, here = os.path.realpath(link), os.path.realpath(folder)
    return here == target or here.startswith(target.rstrip(os.sep) + os.sep)

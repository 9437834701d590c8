"""Find the image files that a user names."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

from gcpzoo.data.scan import name_files, refuse_unreadable, scan_images
from gcpzoo.errors import ZooError, printable


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Find the image files among files and folders, those below a folder sorted; warn of what is ignored there.

    Raises:
        ZooError: if a path does not exist, a folder holds no image, or one below it cannot be read.

    >>> find_images(["absent.png"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: no image 'absent.png'
    """
    given = [Path(path) for path in paths]
    for path in given:
        if not path.exists():
            raise ZooError(f"no image {str(path)!r}")
    found: list[str] = []
    for path in given:
        if path.is_dir():
            inside = scan_images(str(path))
            refuse_unreadable(inside.unreadable)
            if not inside.images:
                raise ZooError(f"no image in folder {str(path)!r}")
            if ignored := inside.ignored:
                named = printable(name_files(ignored, str(path), most=20))
                warnings.warn(f"{path}: {len(ignored):,} ignored: {named}", stacklevel=2)
            found += inside.images
        else:
            found.append(str(path))
    return found

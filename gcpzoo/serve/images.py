"""Find the image files that a user names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from gcpzoo.errors import ZooError


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Find the image files among files and folders, those below a folder sorted.

    Raises:
        ZooError: if a path does not exist (found out without importing torch), or a folder holds no image.

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
            from gcpzoo.data.images import list_images  # imports torch

            inside, _ = list_images(str(path))
            if not inside:
                raise ZooError(f"no image in folder {str(path)!r}")
            found += inside
        else:
            found.append(str(path))
    return found

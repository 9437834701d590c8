"""The folder that an official archive was extracted to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gcpzoo.errors import ZooError


def find_folder(data: str, root: str, name: str, parts: Sequence[str], hint: str) -> Path:
    """Find the folder ``name`` in ``root``, or ``root`` itself if it is that folder, with all ``parts`` inside.

    Raises:
        ZooError: if something is missing; the message says what was expected where, and gives the ``hint``.

    >>> find_folder("CUB200", "/nowhere", "CUB_200_2011", ["images"], "extract the archive there")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: CUB200: there is no folder /nowhere; extract the archive there
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise ZooError(f"{data}: there is no folder {base}; {hint}")
    folder = base / name if (base / name).is_dir() else base
    missing = [part for part in parts if not (folder / part).exists()]
    if missing:
        expected = ", ".join(f"{name}/{part}" for part in parts)
        raise ZooError(f"{data}: {folder} lacks {', '.join(missing)}; expected in {base}: {expected}; {hint}")
    return folder

"""Where files outside the code are: in a checkout at its top level, in an installed package inside it."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import platformdirs


def resource(name: str) -> Path:
    """Find the folder ``checkpoints`` or ``configs``: the checkout's own, else the one in the installed package.

    >>> resource("checkpoints").name
    'checkpoints'
    """
    package = Path(str(files("gcpzoo")))
    checkout = package.parent / name
    return checkout if (package.parent / "pyproject.toml").is_file() and checkout.is_dir() else package / name


def cache() -> Path:
    """Find the folder for downloaded weights: ``$GCPZOO_CACHE``, else ``gcpzoo`` in the user's cache folder.

    The user's cache folder is ``$XDG_CACHE_HOME``, or what the operating system uses: ``~/.cache`` on Linux,
    ``~/Library/Caches`` on macOS.

    >>> from unittest.mock import patch
    >>> with patch.dict("os.environ", GCPZOO_CACHE="/data/weights"):
    ...     print(cache())
    /data/weights
    """
    if given := os.environ.get("GCPZOO_CACHE"):
        return Path(given).expanduser()
    return platformdirs.user_cache_path("gcpzoo", appauthor=False)

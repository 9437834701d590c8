"""Where files outside the code are, and how files are written: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import platformdirs

from gcpzoo.errors import ZooError

TEMPORARY = ".writing-"
"""Start of the names of files that are not whole yet; they stand beside what they will become."""


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


@contextmanager
def replacing(path: str | Path, former: Path | None = None) -> Iterator[Path]:
    """Write a file whole or not at all: fill the temporary one that this gives; it then takes the place of ``path``.

    The temporary file is in the same folder, so that the last step is one rename, and is flushed to the disk before.
    Where the writing fails, the file that was there stays as it was.

    Args:
        path: the file to write.
        former: where the file that was there is kept; null: it is not.

    Raises:
        ZooError: if the file cannot be written, e.g. because the disk is full; the message says why.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "metrics.json") as temporary:
    ...     _ = temporary.write_text("{}")
    >>> [file.name for file in folder.iterdir()]
    ['metrics.json']
    """
    path = Path(path)
    temporary = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(mode)
        flush(temporary)
        if former is not None and path.exists():
            _keep(path, former)
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        raise ZooError(f"{path} cannot be written: {error.strerror or error}; what was there before is kept") from error
    finally:
        if temporary != path:
            temporary.unlink(missing_ok=True)


def _keep(path: Path, former: Path) -> None:
    """Give a file a second name, so that it exists under both; where links are not supported, its only one."""
    link = former.with_name(f"{TEMPORARY}{former.name}")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:
        path.replace(link)
    link.replace(former)


def flush(path: Path) -> None:
    """Have the disk store a file, or the names in a folder, before anything goes on.

    >>> flush(Path(tempfile.mkdtemp()))
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of :func:`replacing` that a killed process left in a folder.

    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / ".writing-x.ckpt").touch()
    >>> remove_leftovers(folder)
    >>> list(folder.iterdir())
    []
    """
    for file in folder.glob(f"{TEMPORARY}*"):
        file.unlink(missing_ok=True)


def _umask() -> int:
    """Read the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask

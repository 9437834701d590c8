"""Where files outside the code are, and how files are written: whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path

import platformdirs

from gcpzoo.errors import ZooError

TEMPORARY = ".writing-"
"""Start of the names of files that are not whole yet; they stand beside what they will become."""
RUN_FILES = ("best.ckpt", "last.ckpt")
"""The model of a run's folder: the best epoch where the run kept it, else the final one."""
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
"""How the names of files end whose weights a training can start from."""
TOGETHER = ".written"
"""Folder of files that are whole and count already, on their way to the folder that it is in."""


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


def run_file(folder: str | os.PathLike[str]) -> Path | None:
    """Find the checkpoint that stands for a run's folder; ``None`` if this is no folder of a run.

    Raises:
        ZooError: if the folder holds runs, such as those of a comparison, of folds or of generations.

    >>> run_file("/nowhere") is None
    True
    """
    folder = Path(folder).expanduser()
    found = next((p for name in RUN_FILES if (p := folder / "checkpoints" / name).is_file()), None)
    runs = (
        [] if found else sorted((p.parent for p in folder.glob("*/checkpoints")), key=lambda p: (len(p.name), p.name))
    )
    if runs:
        raise ZooError(f"{folder} holds {len(runs)} runs: name one, such as {runs[-1]}")
    return found


def file_id(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Identify a file or folder, through links, by device and inode; ``None`` if there is none.

    >>> file_id("/nowhere") is None
    True
    """
    stat = _stat(path)
    return (stat.st_dev, stat.st_ino) if stat else None


def file_state(path: str | os.PathLike[str]) -> list[int] | None:
    """Give what changes with a file's content: size, time of change and of change of status; ``None`` without a file.

    A copy may take over the second from another file, as ``cp -p`` and ``rsync`` do; the third nothing can set.

    >>> file_state("/nowhere") is None
    True
    """
    stat = _stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] if stat else None


def _stat(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def check_outputs(outputs: Iterable[str | os.PathLike[str]], read: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Refuse, before the work, files that its results must not replace: folders, devices, and what it reads.

    Args:
        outputs: the files that are to be written.
        read: files that are read for it, such as the user's images.

    Raises:
        ZooError: if one of them must stay; it names it.

    >>> check_outputs([Path(tempfile.mkdtemp()) / "out.csv"])
    >>> check_outputs([os.devnull])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: output must be a file, got '/dev/null', a device or pipe
    """
    inputs = {file_id(path) for path in read} - {None}
    for path in map(Path, outputs):
        if path.is_dir():
            raise ZooError(f"output must be a file, got the folder {str(path)!r}")
        if path.exists() and not path.is_file():
            raise ZooError(f"output must be a file, got {str(path)!r}, a device or pipe")
        if file_id(path) in inputs:
            raise ZooError(f"{str(path)!r} is one of the files to read, which the output would destroy: give another")


@contextmanager
def replacing(path: str | Path, former: Path | None = None) -> Iterator[Path]:
    """Write a file whole or not at all: fill the temporary one that this gives; it then takes the place of ``path``.

    The temporary file is in the same folder, so that the last step is one rename, and is flushed to the disk before.
    Where the writing fails, the file that was there stays as it was.

    Args:
        path: the file to write.
        former: where the file that was there is kept; null: it is not.

    Raises:
        ZooError: if the file cannot be written, e.g. because the disk is full, or the path is no file's; the message
            says why.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "metrics.json") as temporary:
    ...     _ = temporary.write_text("{}")
    >>> [file.name for file in folder.iterdir()]
    ['metrics.json']
    """
    path = Path(path)
    check_outputs([path])
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


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all, as :func:`replacing` does.

    Raises:
        ZooError: if the file cannot be written; the message says why.

    >>> folder = Path(tempfile.mkdtemp())
    >>> write_text(folder / "metrics.json", "{}")
    >>> [file.name for file in folder.iterdir()]
    ['metrics.json']
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _keep(path: Path, former: Path) -> None:
    """Give a file a second name, so that it exists under both; where links are not supported, its only one."""
    link = former.with_name(f"{TEMPORARY}{former.name}")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:
        path.replace(link)
    link.replace(former)


@contextmanager
def replacing_together(folder: str | Path) -> Iterator[Path]:
    """Write several files of a folder, all or none: fill the temporary folder that this gives.

    They count from one rename on, that of the temporary folder to ``.written``; then each is moved to its place. After
    a kill between the two :func:`current` finds the new ones, and the next writing ends the move. Other files of the
    folder stay.

    Raises:
        ZooError: if a file cannot be written, e.g. because the disk is full; the message says why.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing_together(folder) as temporary:
    ...     _ = (temporary / "config.json").write_text("{}"), (temporary / "model.safetensors").write_text("")
    >>> sorted(file.name for file in folder.iterdir())
    ['config.json', 'model.safetensors']
    """
    folder = Path(folder)
    temporary = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _move_written(folder)
        for leftover in folder.glob(f"{TEMPORARY}*/"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder))
        yield temporary
        for file in temporary.iterdir():
            file.chmod(0o666 & ~_umask())
            flush(file)
        flush(temporary)
        temporary.rename(folder / TOGETHER)
        flush(folder)
    except OSError as error:
        raise ZooError(
            f"{folder} cannot be written: {error.strerror or error}; what was there before is kept"
        ) from error
    finally:
        if temporary != folder:
            shutil.rmtree(temporary, ignore_errors=True)
    with suppress(OSError):  # the files count already
        _move_written(folder)


def current(folder: Path, name: str) -> Path:
    """Locate a file that :func:`replacing_together` wrote, also where a kill kept it from reaching its place.

    >>> folder = Path(tempfile.mkdtemp())
    >>> current(folder, "config.json") == folder / "config.json"
    True
    """
    written = folder / TOGETHER / name
    return written if written.is_file() else folder / name


def _move_written(folder: Path) -> None:
    """Move files that count already to their places."""
    if (written := folder / TOGETHER).is_dir():
        for file in written.iterdir():
            file.replace(folder / file.name)
        flush(folder)
        written.rmdir()


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

"""Image files: which files are images, how they are read, and which cannot be read.

Fitting, testing, predicting and verifying read images here only, so that all see the same pixels.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import to_rgb

decode: Callable[[bytes], Any] | None = None
try:
    from torchcodec.decoders import decode_jpeg

    decode = decode_jpeg
except (ImportError, RuntimeError, OSError):
    pass  # not installed, or built for another torch: Pillow gives the same pixels more slowly

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2")
JPEG = b"\xff\xd8\xff"
_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class ImageError(ZooError):
    """An image file is missing, truncated or no image; the message names it.

    A DataLoader passes on an exception of a worker process as ``type(error)(text of its traceback)``. Only the message
    at the end of the traceback is kept: the user reads the same line with and without workers.

    >>> ImageError("Traceback (most recent call last): ... ImageError: cannot read image cat.jpg: truncated")
    ImageError('cannot read image cat.jpg: truncated')
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition("ImageError: ")[2].strip())


def _special(path: str) -> bool:
    """Say whether the path is a pipe, a device or a folder; a reader would wait forever for a pipe."""
    return os.path.exists(path) and not os.path.isfile(path)


def read_image(path: str) -> Image.Image:
    """Read an image with Pillow, upright and in mode RGB: the exact way, for evaluation.

    Every mode is converted by :func:`~gcpzoo.models.preprocessing.to_rgb`.

    Raises:
        ImageError: if the file cannot be read or decoded to its end.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (4, 3), 200).save(f"{folder}/grey.png")
    ...     read_image(f"{folder}/grey.png").getpixel((0, 0))
    (200, 200, 200)
    """
    if _special(path):
        raise ImageError(f"cannot read image {path}: not a regular file; replace or delete it")
    try:
        with Image.open(path) as image:
            image.load()
            return to_rgb(image)
    except _ERRORS as error:
        raise ImageError(f"cannot read image {path}: {_reason(error)}; replace or delete it") from None


def read_pixels(path: str) -> Tensor:
    """Read the same image as a uint8 tensor ``(3, H, W)``, JPEG decoded straight into it: the fast way, for training.

    Raises:
        ImageError: if the file cannot be read or decoded to its end.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (4, 3), 200).save(f"{folder}/grey.png")
    ...     read_pixels(f"{folder}/grey.png").shape
    torch.Size([3, 3, 4])
    """
    if decode is not None and not _special(path):
        try:
            with open(path, "rb") as file:
                start = file.read(2**17)
                # the decoder turns images by EXIF but not by XMP, as Pillow does
                if start.startswith(JPEG) and b"tiff:Orientation" not in start:
                    pixels: Tensor = decode(start + file.read())
                    return pixels
        except (RuntimeError, OSError, ValueError):
            pass  # a bad file: Pillow can read it, or says why not
    return F.pil_to_tensor(read_image(path))


def fault(path: str) -> str | None:
    """Say why an image file cannot be used; ``None`` if it looks whole.

    JPEG, PNG and WebP are judged by their first and last bytes (JPEG's EOI, PNG's IEND, WebP's length). Files that look
    wrong, and other formats, are decoded.

    >>> fault("/nowhere/cat.jpg")
    'no such file'
    """
    if _special(path):
        return "not a regular file"
    try:
        with open(path, "rb") as file:
            head = file.read(12)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 64))
            tail = file.read().rstrip(b"\0\r\n ")
    except OSError as error:
        return _reason(error)
    if size == 0:
        return "empty file"
    whole = (
        (head[:3] == JPEG and tail.endswith(b"\xff\xd9"))
        or (head[:8] == b"\x89PNG\r\n\x1a\n" and tail.endswith(b"IEND\xaeB`\x82"))
        or (head[:4] == b"RIFF" and head[8:] == b"WEBP" and size >= 8 + int.from_bytes(head[4:8], "little"))
    )
    if not whole:
        try:
            with Image.open(path) as image:
                image.load()
        except _ERRORS as error:
            return _reason(error)
    return None


def check_images(paths: Sequence[str], root: str = "", remedy: str = "replace or delete them") -> None:
    """Look at every file with :func:`fault`.

    Args:
        paths: the files.
        root: folder that the message names the files in.
        remedy: what to do about bad files, for the message.

    Raises:
        ImageError: if there are bad files; the message counts them and names up to 10.

    >>> check_images(["/nowhere/cat.jpg"], root="/nowhere")
    Traceback (most recent call last):
    gcpzoo.data.images.ImageError: 1 of 1 images in /nowhere cannot be read: cat.jpg (no such file); replace or ...
    """
    with ThreadPoolExecutor(16) as pool:  # waiting for the disk, not computing
        bad = [(path, why) for path, why in zip(paths, pool.map(fault, paths, chunksize=256)) if why]
    if bad:
        names = "; ".join(f"{os.path.relpath(path, root or None)} ({why})" for path, why in bad[:10])
        more = f"; and {len(bad) - 10:,} more" if len(bad) > 10 else ""
        place = f" in {root}" if root else ""
        raise ImageError(f"{len(bad):,} of {len(paths):,} images{place} cannot be read: {names}{more}; {remedy}")


def list_images(folder: str) -> tuple[list[str], list[str]]:
    """List all image files below ``folder`` and all other visible files, both sorted.

    An image file is one whose suffix is in ``SUFFIXES``, in small or capital letters. Names that begin with ``.`` or
    ``__`` are hidden.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.JPG", "b.txt", ".c.png"):
    ...         pathlib.Path(folder, name).touch()
    ...     [[pathlib.Path(path).name for path in paths] for paths in list_images(folder)]
    [['a.JPG'], ['b.txt']]
    """
    images: list[str] = []
    others: list[str] = []
    for base, folders, files in os.walk(folder, followlinks=True):
        folders[:] = _visible(folders)
        for name in _visible(files):
            (images if name.lower().endswith(SUFFIXES) else others).append(os.path.join(base, name))
    return sorted(images), sorted(others)


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


def list_folders(folder: str) -> list[str]:
    """List the names of the visible folders directly in ``folder``, sorted.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("dog", "cat", ".git"):
    ...         pathlib.Path(folder, name).mkdir()
    ...     list_folders(folder)
    ['cat', 'dog']
    """
    return _visible(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith((".", "__")))


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]

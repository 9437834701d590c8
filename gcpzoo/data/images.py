"""Reading image files, and finding those that cannot be read before the training starts."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import to_rgb

decode: Callable[[str], Any] | None = None
try:
    from torchcodec.decoders import decode_jpeg

    decode = decode_jpeg
except (ImportError, RuntimeError, OSError):
    pass  # not installed, or built for another torch: Pillow gives the same pixels, slower

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2")
_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class ImageError(ZooError):
    """A image file is missing, truncated or no image; the message names it.

    A DataLoader hands an exception of a worker process on as ``type(error)(text of its traceback)``; only the
    message at the traceback's end is kept, so that the user reads the same line with and without workers.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition("ImageError: ")[2].strip())


def _special(path: str) -> bool:
    """Whether it is a pipe, a device or a folder, of which the first would keep a reader waiting for ever."""
    return os.path.exists(path) and not os.path.isfile(path)


def read_image(path: str) -> Image.Image:
    """The image as :func:`~gcpzoo.models.preprocessing.to_rgb` gives it: the exact way, for evaluation.

    Raises:
        ImageError: the file cannot be read or decoded to its end.
    """
    if _special(path):
        raise ImageError(f"cannot read image {path}: no regular file; replace or delete it")
    try:
        with Image.open(path) as image:
            image.load()
            return to_rgb(image)
    except _ERRORS as error:
        raise ImageError(f"cannot read image {path}: {_reason(error)}; replace or delete it") from None


def read_pixels(path: str) -> Tensor:
    """The same image as a uint8 tensor ``(3, H, W)``, JPEG decoded straight into it: the fast way, for training.

    Raises:
        ImageError: the file cannot be read or decoded to its end.
    """
    if decode is not None and not _special(path):
        try:
            return decode(path)
        except (RuntimeError, OSError, ValueError):
            pass  # no JPEG, or a bad one: Pillow can read it, or says in plain words why not
    return F.pil_to_tensor(read_image(path))


def fault(path: str) -> str | None:
    """Why the image file cannot be used; ``None`` when it looks whole.

    Looks at the size, the first and the last bytes (JPEG's EOI, PNG's IEND, WebP's length). A file that fails this
    glance, or of another format, is decoded, and the decoder decides.
    """
    if _special(path):
        return "no regular file"
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
        (head[:3] == b"\xff\xd8\xff" and tail.endswith(b"\xff\xd9"))
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
    """Looks at every file with :func:`fault`.

    Raises:
        ImageError: names up to 10 bad files, relative to ``root``, and counts all.
    """
    with ThreadPoolExecutor(16) as pool:  # waiting for the disk, not computing
        bad = [(path, why) for path, why in zip(paths, pool.map(fault, paths, chunksize=256)) if why]
    if bad:
        names = "; ".join(f"{os.path.relpath(path, root or None)} ({why})" for path, why in bad[:10])
        more = f"; and {len(bad) - 10:,} more" if len(bad) > 10 else ""
        place = f" in {root}" if root else ""
        raise ImageError(f"{len(bad):,} of {len(paths):,} images{place} cannot be read: {names}{more}; {remedy}")


def list_images(folder: str) -> tuple[list[str], list[str]]:
    """All images below ``folder`` by their suffix, sorted, and the visible files that are none."""
    images: list[str] = []
    others: list[str] = []
    for base, folders, files in os.walk(folder, followlinks=True):
        folders[:] = _visible(folders)
        for name in _visible(files):
            (images if name.lower().endswith(SUFFIXES) else others).append(os.path.join(base, name))
    return sorted(images), sorted(others)


def list_folders(folder: str) -> list[str]:
    """Names of the visible folders directly in ``folder``, sorted."""
    return _visible(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith((".", "__")))


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a image"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]

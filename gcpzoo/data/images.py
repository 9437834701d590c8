"""Image files: how they are read, which cannot be read, and how large they may be.

Fitting, testing, predicting and verifying read images here only, so that all see the same pixels. A path may also be a
:class:`~gcpzoo.data.shards.ShardedFile`, an image in a tar file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from gcpzoo.data.scan import in_threads, name_files
from gcpzoo.data.shards import open_file
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import to_rgb

decode: Callable[[bytes], Any] | None = None
try:
    from torchcodec.decoders import decode_jpeg

    decode = decode_jpeg
except (ImportError, RuntimeError, OSError):
    pass  # not installed, or built for another torch: Pillow gives the same pixels more slowly

JPEG = b"\xff\xd8\xff"
UPLOADS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats, as Pillow names them, that are read where the file comes from a stranger."""
MAX_PIXELS = "GCPZOO_MAX_PIXELS"
"""Environment variable for the most pixels an image may have, in all processes; 0: any number."""


class ImageError(ZooError):
    """An image file is missing, truncated or no image; the message names it.

    A DataLoader passes on an exception of a worker process as ``type(error)(text of its traceback)``. Only the message
    at the end of the traceback is kept: the user reads the same line with and without workers.

    >>> ImageError("Traceback (most recent call last): ... ImageError: cannot read image cat.jpg: truncated")
    ImageError('cannot read image cat.jpg: truncated')
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition("ImageError: ")[2].strip())


def set_pixel_limit(value: str) -> None:
    """Set ``PIL.Image.MAX_IMAGE_PIXELS`` to the value of ``GCPZOO_MAX_PIXELS``; 0 stands for no limit.

    Without it Pillow's own limit holds, 89,478,485 pixels, or what the program sets it to.

    Raises:
        ZooError: if it is not a whole number of pixels.

    >>> set_pixel_limit("89 million")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: GCPZOO_MAX_PIXELS must be a whole number of pixels (0: no limit), got '89 million'
    """
    if not (value.isascii() and value.isdigit()):
        raise ZooError(f"{MAX_PIXELS} must be a whole number of pixels (0: no limit), got {value!r}")
    Image.MAX_IMAGE_PIXELS = int(value) or None


if _given := os.environ.get(MAX_PIXELS):
    set_pixel_limit(_given)


class ImageTooLargeError(ImageError):
    """An image has more pixels than allowed."""


def open_image(source: IO[bytes], formats: list[str] | None = None) -> Image.Image:
    """Read the head of an image file with Pillow and refuse a decompression bomb, before a pixel is decoded.

    Pillow itself only warns up to twice ``PIL.Image.MAX_IMAGE_PIXELS``.

    Args:
        source: the file.
        formats: Pillow's names of the formats to try; null: all.

    Raises:
        PIL.Image.DecompressionBombError: if the image has more pixels than that.
        OSError: if the file cannot be read or is no image; Pillow raises some other kinds too.

    >>> buffer = io.BytesIO()
    >>> Image.new("L", (4, 3)).save(buffer, "png")
    >>> open_image(buffer).size
    (4, 3)
    """
    image = Image.open(source, formats=formats)
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        image.close()
        raise Image.DecompressionBombError
    return image


def _special(path: str) -> bool:
    """Say whether the path is a pipe, a device or a folder; a reader would wait forever for a pipe."""
    return os.path.exists(path) and not os.path.isfile(path)


def read_image(path: str, formats: list[str] | None = None) -> Image.Image:
    """Read an image with Pillow, upright and in mode RGB: the exact way, for evaluation.

    Every mode is converted by :func:`~gcpzoo.models.preprocessing.to_rgb`.

    Args:
        path: the file.
        formats: Pillow's names of the formats to try; null: all. :func:`upload_formats` for the file of a stranger.

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
        with open_file(path) as file:
            return _read(file, formats)
    except Exception as error:  # of any kind: damaged bytes break each of the decoders in its own way
        raise ImageError(f"cannot read image {path}: {_reason(error, formats)}; replace or delete it") from None


def upload_formats() -> list[str]:
    """Name the formats that are read where a file comes from a stranger: Pillow starts other programs for some others.

    >>> "PNG" in upload_formats(), "EPS" in upload_formats()
    (True, False)
    """
    Image.init()
    return [name for name in UPLOADS if name in Image.OPEN]


def decode_image(data: bytes, name: str) -> Image.Image:
    """Read the bytes of an image file from a stranger, of one of :func:`upload_formats`, as :func:`read_image` does.

    Args:
        data: what the file holds.
        name: what the message calls it.

    Raises:
        ImageTooLargeError: if it has too many pixels.
        ImageError: if it cannot be decoded to its end, or has another format.

    >>> decode_image(b"%!PS-Adobe-3.0 EPSF-3.0", "cat.eps")
    Traceback (most recent call last):
    gcpzoo.data.images.ImageError: cannot read image cat.eps: not an image in AVIF, BMP, ...
    """
    formats = upload_formats()
    try:
        return _read(io.BytesIO(data), formats)
    except Image.DecompressionBombError:
        raise ImageTooLargeError(f"cannot read image {name}: more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except Exception as error:  # of any kind: damaged bytes break each of the decoders in its own way
        raise ImageError(f"cannot read image {name}: {_reason(error, formats)}") from None


def _read(file: IO[bytes], formats: list[str] | None = None) -> Image.Image:
    with open_image(file, formats) as image:
        image.load()
        return to_rgb(image)


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
            with open_file(path) as file:
                start = file.read(2**17)
                # the decoder turns images by EXIF but not by XMP, as Pillow does
                if start.startswith(JPEG) and b"tiff:Orientation" not in start:
                    open_image(io.BytesIO(start)).close()  # the decoder knows no limit of pixels
                    pixels: Tensor = decode(start + file.read())
                    return pixels
        except Exception:
            pass  # a bad file: Pillow can read it, or says why not
    return F.pil_to_tensor(read_image(path))


@dataclass(frozen=True)
class Contents:
    """What an image file holds, as stored; ``fault`` says why it cannot be used.

    >>> Contents(640, 480, "RGB", "JPEG").fault is None
    True
    """

    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    fault: str | None = None


def examine(path: str) -> Contents:
    """Decode an image file to its end and say what it holds.

    The pixels of a JPEG are computed at an eighth of their size, from the same bytes.

    >>> examine("/nowhere/cat.jpg").fault
    'no such file'
    """
    if _special(path):
        return Contents(fault="not a regular file")
    contents = Contents()
    try:
        with open_file(path) as file:
            if not file.read(1):
                return Contents(fault="empty file")
            file.seek(0)
            with open_image(file) as image:
                contents = Contents(image.width, image.height, image.mode, image.format or "")
                image.draft("L", (1, 1))
                image.load()
                if image.format != "JPEG":
                    to_rgb(image)
    except Exception as error:  # of any kind: damaged bytes break each of the decoders in its own way
        return Contents(contents.width, contents.height, contents.mode, contents.format, _reason(error))
    return contents


def find_faults(
    paths: Sequence[str],
    done: Callable[[int], Any] = lambda n: None,
    misfit: Callable[[int, int], str | None] = lambda width, height: None,
) -> dict[str, str]:
    """Decode every file and give the reason for each that cannot be used, in the order of ``paths``.

    Args:
        paths: the files.
        done: is told now and then how many more are decoded.
        misfit: says why an image of a width and height cannot be used, as ``Preprocessing.misfit`` does.

    >>> find_faults(["/nowhere/cat.jpg"])
    {'/nowhere/cat.jpg': 'no such file'}
    """

    def fault(path: str) -> str | None:
        found = examine(path)
        return found.fault or misfit(found.width, found.height)

    whys = in_threads(fault, paths, done)
    return {path: why for path, why in zip(paths, whys) if why}


def refuse_faults(faults: dict[str, str], total: int, root: str, remedy: str = "replace or delete them") -> None:
    """Refuse to go on with files that cannot be read.

    Args:
        faults: reason for each such file.
        total: number of all files.
        root: folder that the message names the files in.
        remedy: what to do about them, for the message.

    Raises:
        ImageError: if there are any; the message counts them and names up to 100.

    >>> refuse_faults({"/data/cat.jpg": "empty file"}, 9, "/data")
    Traceback (most recent call last):
    gcpzoo.data.images.ImageError: 1 of 9 images in /data cannot be read: cat.jpg (empty file); replace or delete them
    """
    if faults:
        names = name_files(faults, root)
        raise ImageError(f"{len(faults):,} of {total:,} images in {root} cannot be read: {names}; {remedy}")


def _reason(error: BaseException, formats: list[str] | None = None) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image in {', '.join(formats)}" if formats else "not an image"
    if isinstance(error, Image.DecompressionBombError):
        limit = Image.MAX_IMAGE_PIXELS or 0
        return f"more than {limit:,} pixels, perhaps a decompression bomb: {MAX_PIXELS}=N allows N pixels, 0 any number"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]

r"""Images inside tar files: where each lies, and how its bytes are read.

A folder of shards holds ``train-00000.tar``, ``train-00001.tar``, … for each split, standard tar files with a member
``CLASS/FILE`` for each image, and the index ``shards.safetensors``: for each split the ids of the classes, size and
SHA-256 of each shard, and for each image its name, class, shard, offset, size and CRC-32. Nothing of the tar files is
parsed: an image is read by its offset, in any order.
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gcpzoo.data.scan import SPLITS
from gcpzoo.errors import ZooError
from gcpzoo.limits import load_json
from gcpzoo.paths import replacing

INDEX = "shards.safetensors"
VERSION = 1
COLUMNS = ("class", "shard", "offset", "size", "crc32")
"""Of the table of a split's images."""
_SHARD = re.compile(rf"({'|'.join(SPLITS)})-\d{{5,}}\.tar")


class ShardedFile(str):
    """An image file in a shard; as a string it is ``SHARD/CLASS/FILE``, which messages and tables show.

    Args:
        shard: path of the tar file.
        member: name in it.
        offset: of the first byte.
        size: number of bytes.
        crc32: their checksum.

    >>> file = ShardedFile("out/train-00000.tar", "cat/1.png", offset=512, size=70, crc32=0)
    >>> print(file, file.offset)
    out/train-00000.tar/cat/1.png 512
    """

    __slots__ = ("crc32", "offset", "shard", "size")
    shard: str
    offset: int
    size: int
    crc32: int

    def __new__(cls, shard: str, member: str, offset: int, size: int, crc32: int) -> ShardedFile:
        file = super().__new__(cls, f"{shard}/{member}")
        file.shard, file.offset, file.size, file.crc32 = shard, offset, size, crc32
        return file

    @property
    def member(self) -> str:
        """Name in the shard.

        >>> ShardedFile("out/train-00000.tar", "cat/1.png", 512, 70, 0).member
        'cat/1.png'
        """
        return self[len(self.shard) + 1 :]

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.shard, self.member, self.offset, self.size, self.crc32

    def open(self) -> io.BytesIO:
        """Read the file into memory.

        Threads and processes may read at once: no position in the shard is shared.

        Raises:
            OSError: if the shard cannot be read, or holds other bytes there than were written.

        >>> ShardedFile("/nowhere/train-00000.tar", "cat/1.png", 512, 70, 0).open()
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/train-00000.tar'
        """
        data = os.pread(_descriptor(self.shard).number, self.size, self.offset)
        if len(data) != self.size:  # a read gives at most 2 GiB at once, more than an image file has
            raise OSError("the shard ends before it; copy or make the shards again")
        if zlib.crc32(data) != self.crc32:
            raise OSError("the shard holds other bytes than were written; copy or make the shards again")
        return io.BytesIO(data)


class ShardedSplit(str):
    """A split in shards; as a string it is ``FOLDER/SPLIT``, as if it were a folder.

    Args:
        path: that string.
        images: the files of each class.

    >>> ShardedSplit("out/train", {"cat": []}).images
    {'cat': []}
    """

    images: Mapping[str, list[str]]

    def __new__(cls, path: str, images: Mapping[str, list[str]]) -> ShardedSplit:
        split = super().__new__(cls, path)
        split.images = images
        return split


def open_file(path: str) -> io.BufferedReader | io.BytesIO:
    """Open an image file for reading, in a shard or not.

    >>> open_file("/dev/null").read()
    b''
    """
    return path.open() if isinstance(path, ShardedFile) else open(path, "rb")


def file_size(path: str) -> int:
    """Return the number of bytes of an image file, in a shard or not.

    >>> file_size(ShardedFile("out/train-00000.tar", "cat/1.png", 512, 70, 0))
    70
    """
    return path.size if isinstance(path, ShardedFile) else os.path.getsize(path)


@dataclass(frozen=True)
class SplitTable:
    """What the index says of one split.

    Args:
        classes: ids of the classes, sorted.
        shards: ``size`` in bytes and ``sha256`` of each shard.
        names: of the images, in the folders of their classes.
        places: int64 ``(images, 5)``, see ``COLUMNS``.

    >>> SplitTable(["cat"], [{"size": 10240, "sha256": ""}], ["1.png"], np.array([[0, 0, 512, 70, 0]])).names
    ['1.png']
    """

    classes: list[str]
    shards: list[dict[str, Any]]
    names: list[str]
    places: NDArray[np.int64]


def shard_name(split: str, number: int) -> str:
    """Name a shard.

    >>> shard_name("train", 7)
    'train-00007.tar'
    """
    return f"{split}-{number:05}.tar"


def write_index(folder: Path, splits: Mapping[str, SplitTable]) -> None:
    """Write the index of a folder of shards, which makes it valid: the last step.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_index(folder, {})
    >>> read_shards(str(folder))
    {}
    """
    about = {split: {"classes": table.classes, "shards": table.shards} for split, table in splits.items()}
    arrays: dict[str, NDArray[Any]] = {}
    for split, table in splits.items():
        arrays[f"{split}.places"] = table.places
        names = "\0".join(table.names).encode("utf-8", "surrogateescape")
        arrays[f"{split}.names"] = np.frombuffer(names, np.uint8)
    with replacing(folder / INDEX) as temporary:
        temporary.write_bytes(save(arrays, {"shards": json.dumps({"version": VERSION, "splits": about})}))


def read_shards(root: str) -> dict[str, ShardedSplit] | None:
    """Find the splits of a folder of shards; ``None`` if it is none.

    The size of every shard and its first image are compared with the index; every image is when it is read.

    Raises:
        ZooError: if the index is damaged or missing, or a shard is missing, cut off or another one.

    >>> read_shards("/nowhere") is None
    True
    """
    path = os.path.join(root, INDEX)
    if not os.path.isfile(path):
        if os.path.isdir(root) and (lost := [name for name in sorted(os.listdir(root)) if _SHARD.fullmatch(name)]):
            raise ZooError(
                f"{root} holds shards ({lost[0]}) but no {INDEX}, which is written last: copy it too, or make the "
                "shards again (gcpzoo shard)"
            )
        return None
    _descriptor.cache_clear()  # the shards may be new ones of the same name
    try:
        tables = _read_index(path)
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
        why = str(error).splitlines()[0] if isinstance(error, ZooError) else "damaged"
        raise ZooError(f"{path} is not an index of shards: {why}; copy or make the shards again") from error
    return {split: _split(root, split, table) for split, table in tables.items()}


def _read_index(path: str) -> dict[str, SplitTable]:
    """Read the index; anything but what :func:`write_index` writes is an error of one kind or another."""
    tables = {}
    with safe_open(path, framework="np") as file:
        about = load_json(file.metadata()["shards"], INDEX)
        if about["version"] != VERSION:
            raise ZooError(f"version must be {VERSION}, got {about['version']!r:.20}")
        for split in (split for split in SPLITS if split in about["splits"]):
            classes, shards = about["splits"][split]["classes"], about["splits"][split]["shards"]
            names = file.get_tensor(f"{split}.names").tobytes().decode("utf-8", "surrogateescape").split("\0")
            places = file.get_tensor(f"{split}.places")
            if places.dtype != np.int64 or places.shape != (len(names), len(COLUMNS)) or places.min() < 0:
                raise ZooError(f"the table of {split} has a wrong form")
            label, shard, offset, size, crc32 = places.T
            if not all(type(entry["size"]) is int for entry in shards):
                raise ZooError(f"the sizes of the shards of {split} must be whole numbers")
            sizes = np.array([entry["size"] for entry in shards], np.int64)
            inside = label.max() < len(classes) and shard.max() < len(shards) and crc32.max() < 2**32
            if not (inside and (size <= sizes[shard]).all() and (offset <= sizes[shard] - size).all()):
                raise ZooError(f"the table of {split} leads out of the shards")
            tables[split] = SplitTable([str(name) for name in classes], shards, names, places)
    return tables


def _split(root: str, split: str, table: SplitTable) -> ShardedSplit:
    paths = [os.path.join(root, shard_name(split, i)) for i in range(len(table.shards))]
    for path, entry in zip(paths, table.shards):
        _check_size(path, entry["size"])
    images: dict[str, list[str]] = {}
    first: dict[str, ShardedFile] = {}
    for name, (label, shard, offset, size, crc32) in zip(table.names, table.places.tolist()):
        file = ShardedFile(paths[shard], f"{table.classes[label]}/{name}", offset, size, crc32)
        images.setdefault(table.classes[label], []).append(file)
        first.setdefault(paths[shard], file)
    for path, file in first.items():
        try:
            file.open()
        except OSError as error:
            if error.errno is not None:  # e.g. permission denied
                raise ZooError(f"shard {path} cannot be read: {error.strerror}; allow it, or copy it again") from None
            raise ZooError(
                f"shard {path} is not the one that the index was written with: {file.member} has other bytes; copy "
                "or make the shards again"
            ) from None
    return ShardedSplit(os.path.join(root, split), images)


def _check_size(path: str, size: int) -> None:
    remedy = "copy or make the shards again (gcpzoo shard)"
    try:
        real = os.path.getsize(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise ZooError(f"shard {path} {'is missing' if missing else 'cannot be read'}; {remedy}") from None
    if real != size:
        what = "cut off" if real < size else "not the one that the index was written with"
        raise ZooError(f"shard {path} is {what}: it must have {size:,} bytes, got {real:,}; {remedy}")


class _Descriptor:
    """An open shard, closed when nobody reads it any more: also where a thread reads while the cache drops it."""

    def __init__(self, path: str) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


@functools.lru_cache(maxsize=256)
def _descriptor(path: str) -> _Descriptor:
    """Open a shard once in each process; processes that are forked later read by the same descriptor."""
    return _Descriptor(path)

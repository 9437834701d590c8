"""Pack folders of images into shards: few large tar files in place of a million small ones."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from gcpzoo.data.folder import scan
from gcpzoo.data.loading import Sample
from gcpzoo.data.scan import SPLITS, list_folders, root_folder, split_folders
from gcpzoo.data.screening import ScreenedDataModule, refuse_shared_files
from gcpzoo.data.shards import COLUMNS, SplitTable, shard_name, write_index
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.paths import replacing


@dataclass
class Packed:
    """What :func:`pack` wrote: the number of images and of shards of each split, and the bytes of all shards.

    >>> Packed().images
    {}
    """

    images: dict[str, int] = field(default_factory=dict)
    shards: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


class Folders(ScreenedDataModule):
    """The images of folders of splits, as they are: no split is made, every class of any split has its place.

    Args:
        root: folder that holds folders of splits.
        splits: the splits to take; null: all.
        on_error: what to do about images that cannot be read: ``stop`` or ``skip``.

    >>> Folders("/nowhere")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: 1 folder cannot be read: /nowhere (No such file or directory); allow it, or move it away
    """

    def __init__(self, root: str, splits: Sequence[str] | None = None, on_error: str = "stop") -> None:
        super().__init__(on_error=on_error)
        self.root = root_folder(root)
        for split in splits or ():
            if split not in SPLITS:
                raise unknown_name("split", split, SPLITS)
        place = str(self.root)
        folders, _ = split_folders(place)
        missing = [split for split in splits or () if split not in folders]
        if not folders or missing:
            what = ", ".join(missing) or "train, val or test"
            raise ZooError(f"{place} has no folder {what}; expected {place}/train/CLASS/… and {place}/val/CLASS/…")
        self.places = {split: os.path.join(place, folders[split]) for split in SPLITS if split in (splits or folders)}
        self.classes = sorted({name for folder in self.places.values() for name in list_folders(folder)})
        self.images = {split: scan(folder, self.classes) for split, folder in self.places.items()}
        refuse_shared_files(self.images, place)


def pack(
    root: str,
    out: str,
    max_bytes: int = 2**30,
    splits: Sequence[str] | None = None,
    on_error: str = "stop",
    step: Callable[[str, int], Any] = lambda what, total: None,
    done: Callable[[int], Any] = lambda n: None,
) -> Packed:
    """Write the images of folders, byte for byte, into shards and their index; see :mod:`gcpzoo.data.shards`.

    All images are decoded first, so that nothing is written if one is broken. The same images give the same shards.
    What was written is removed if the rest cannot be.

    Args:
        root: folder of ``train``, ``val`` and ``test`` folders, or some of them, each with a folder for each class.
        out: a new or empty folder.
        max_bytes: most bytes of a shard; an image that is larger has one of its own.
        splits: the splits to pack; null: all that there are.
        on_error: ``stop``: images that cannot be read are an error, which names them; ``skip``: they are left out.
        step: is told what is done now, and to how many images.
        done: is told now and then to how many more images it is done.

    Raises:
        ZooError: if a folder is not as it must be, images cannot be read, or shards cannot be written.

    >>> pack("/nowhere", "/nowhere/shards")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: OUT must not lie in the folder of the images, got /nowhere/shards in /nowhere
    """
    if max_bytes < 2**20:
        raise ZooError(f"a shard must be allowed 1 MB at least, got {max_bytes:,} bytes")
    folder = _new_folder(out, root)
    data = Folders(root, splits, on_error)
    step("decoding", sum(map(len, data.images.values())))
    data.progress = done
    data.screen(data.images)
    step("writing", sum(len(data.keep(images)) for images in data.images.values()))
    packed = Packed(left_out=data.left_out_record())
    new = not folder.exists()
    tables: dict[str, SplitTable] = {}
    try:
        for split in data.images:
            tables[split] = _write_split(folder, split, data, max_bytes, done)
        write_index(folder, tables)
    except BaseException:
        for shard in folder.glob("*.tar"):
            shard.unlink()
        if new and folder.exists():
            folder.rmdir()
        raise
    for split, table in tables.items():
        packed.images[split], packed.shards[split] = len(table.names), len(table.shards)
        packed.bytes += sum(entry["size"] for entry in table.shards)
    return packed


def _new_folder(out: str, root: str) -> Path:
    """Refuse a folder for shards that holds anything, or that a scan of the images would find."""
    folder, images = root_folder(out), root_folder(root)
    if folder.resolve().is_relative_to(images.resolve()):
        raise ZooError(f"OUT must not lie in the folder of the images, got {folder} in {images}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = next((f.name for f in sorted(folder.iterdir())), "") if folder.is_dir() else "a file"
        raise ZooError(
            f"OUT must be a new or empty folder, got {folder}, which holds {what}; delete it or name another"
        )
    return folder


def _write_split(folder: Path, split: str, data: Folders, most: int, done: Callable[[int], Any]) -> SplitTable:
    """Write the shards of one split, the images in the order of the scan."""
    samples = data.keep(data.images[split])
    table = SplitTable(data.classes, [], [], np.empty((len(samples), len(COLUMNS)), np.int64))
    while len(table.names) < len(samples):
        with replacing(folder / shard_name(split, len(table.shards))) as temporary:
            with temporary.open("wb") as file:
                _fill(file, samples, table, data.places[split], most, done)
            with temporary.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            table.shards.append({"size": temporary.stat().st_size, "sha256": digest})
    return table


def _fill(
    file: IO[bytes], samples: Sequence[Sample], table: SplitTable, place: str, most: int, done: Callable[[int], Any]
) -> None:
    """Write the next images into a tar file, as many as fit but one at least, and note in the table where they are."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar:
        for path, label in samples[len(table.names) :]:
            content = _read(path)
            info = tarfile.TarInfo(os.path.relpath(path, place))  # no times, owners or rights: the same each time
            info.size = len(content)
            padded = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            header = len(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
            if file.tell() and file.tell() + header + padded > most - tarfile.RECORDSIZE:
                break
            tar.addfile(info, io.BytesIO(content))
            offset, shard = file.tell() - padded, len(table.shards)
            table.places[len(table.names)] = label, shard, offset, len(content), zlib.crc32(content)
            table.names.append(info.name.partition("/")[2])
            done(1)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ZooError(f"cannot read image {path}: {error.strerror or error}; restore it, or leave it out") from error

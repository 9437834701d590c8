"""The authors' own files: fetched from the authors when first loaded, checked, converted, and kept."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from huggingface_hub import is_offline_mode

from gcpzoo.errors import ZooError, short
from gcpzoo.hub.convert import convert
from gcpzoo.hub.files import CONFIG, DamagedError, read_folder, sha256
from gcpzoo.hub.records import UNVERIFIED, Record
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.paths import cache, current, flush, write_text

QUOTA = ("too many users have viewed or downloaded", "quota exceeded")
"""Words of the pages that Google Drive sends in place of a file that was downloaded too often."""


def converted_folder(record: Record) -> Path:
    """Locate the converted checkpoint of a record in the cache, whether it exists or not.

    >>> from gcpzoo.hub.records import get_record
    >>> converted_folder(get_record("resnet50_isqrt.in1k_li2018")).name
    'resnet50_isqrt.in1k_li2018'
    """
    return cache() / "converted" / record.name


def load_authors(record: Record) -> GCPNet:
    """Load the model of a record whose weights only the authors offer; fetch and convert the file once.

    The SHA-256 of the first file is kept beside it; another file under the same link is refused later. Where the
    authors publish no hash, a warning of one line says so.

    Raises:
        ZooError: without a network (the message says which file to put where), for another hash than the record's or
            the first download's, and for a file that does not fit.

    >>> from gcpzoo.hub.records import get_record
    >>> import os, tempfile
    >>> from unittest.mock import patch
    >>> offline = patch("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    >>> with tempfile.TemporaryDirectory() as folder, offline, patch.dict(os.environ, GCPZOO_CACHE=folder):
    ...     load_authors(get_record("resnet50_isqrt.in1k_li2018"))
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: resnet50_isqrt.in1k_li2018: HF_HUB_OFFLINE is set and the authors' file is not here: ...
    """
    if record.status == UNVERIFIED:
        logging.getLogger("gcpzoo").warning("%s: %s", record.name, record.status)
    folder = converted_folder(record)
    lock = cache() / "locks" / record.name
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # the processes of a distributed run ask for the same file at once
        if current(folder, CONFIG).is_file():
            try:
                return read_folder(folder, record.name)[0]
            except DamagedError:
                shutil.rmtree(folder)
        _fetch_and_convert(record, folder)
        return read_folder(folder, record.name)[0]


def _fetch_and_convert(record: Record, folder: Path) -> None:
    original = cache() / "authors" / f"{record.name}.pth"
    fetched = not original.is_file()
    if fetched:
        download(record.source["url"], original, record.name)
    try:
        _check_hash(record, original)
    except ZooError:
        if fetched:
            original.unlink()
        raise
    convert(original, record.source["converter"], record.source["arch"], folder, record=record)
    if fetched:
        original.unlink()


def _check_hash(record: Record, file: Path) -> None:
    """Compare the file with the hash of the record, and with the one of the first download; keep the latter."""
    found = sha256(file)
    if record.sha256 and not found.startswith(record.sha256):
        raise ZooError(
            f"{record.name}: {file} has sha256 {found[:12]}…, its record says {record.sha256[:12]}…: "
            "remove the file and fetch it again"
        )
    first = file.with_suffix(".sha256")
    if not first.is_file():
        write_text(first, f"{found}  {file.name}\n")
    elif (known := first.read_text(encoding="utf-8").split()[0]) != found:
        raise ZooError(
            f"{record.name}: the authors' file has changed: its sha256 is {found[:12]}…, at the first download it was "
            f"{known[:12]}…; to accept the new file, remove {first}"
        )


def download(url: str, path: Path, name: str) -> None:
    """Fetch ``url`` to ``path``, whole or not at all; Google Drive's question about large files is answered.

    Raises:
        ZooError: without a network, or if a page comes in place of the file; the message gives the remedy.

    >>> from unittest.mock import patch
    >>> with patch("huggingface_hub.constants.HF_HUB_OFFLINE", True):
    ...     download("https://example.org/w.pth", Path("w.pth"), "resnet50_gap.example")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: ...: fetch https://example.org/w.pth by hand, put it at w.pth, and load again
    """
    import gdown  # slow to import, and of no use to any other model
    import requests  # gdown's

    by_hand = f"fetch {url} by hand, put it at {path}, and load again"
    if is_offline_mode():
        raise ZooError(f"{name}: HF_HUB_OFFLINE is set and the authors' file is not here: {by_hand}")
    part = path.with_name(path.name + ".part")
    _remove_leftovers(path)
    part.mkdir(parents=True)
    try:
        file = part / path.name
        try:
            gdown.download(url, str(file), quiet=True, timeout=60)
        except Exception as error:  # gdown's, requests' and the system's errors have no common class
            quota = f": {_quota(url)}" if _is_quota(str(error)) else ""
            cut_off = type(error) is requests.ConnectionError  # its kinds say more, a bad certificate for one
            reason = f"no connection to {urlsplit(url).hostname}" if cut_off else short(error)[:160]
            raise ZooError(f"{name}: the authors' file could not be fetched ({reason}){quota}: {by_hand}") from error
        page = _page(file)
        if page is not None:
            quota = f": {_quota(url)}" if _is_quota(page) else ""
            raise ZooError(f"{name}: {url} gave a page instead of the file{quota}: {by_hand}")
        flush(file)
        file.replace(path)
    finally:
        _remove_leftovers(path)


def _remove_leftovers(path: Path) -> None:
    """Remove what broken downloads to ``path`` have left, gdown's temporary files among them."""
    for leftover in path.parent.glob(f"{path.name}*.part"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _page(path: Path) -> str | None:
    """Give the text of a page that came in place of a file of weights; ``None`` for a file that starts otherwise."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        start = file.read(2**16)
    return start.decode(errors="replace") if start.lstrip()[:1] in (b"", b"<") else None


def _is_quota(text: str) -> bool:
    return any(words in " ".join(text.lower().split()) for words in QUOTA)


def _quota(url: str) -> str:
    host = "Google Drive" if "google." in url else "the server"
    return (
        f"{host}'s download quota for this file is used up; wait a day and load again, or copy the file into a Drive "
        "of your own and download the copy"
    )

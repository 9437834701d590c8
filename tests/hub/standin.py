"""A Hub on this machine: what the Hugging Face Hub keeps, in memory and one folder, served to the real client.

    hub = Hub(folder); hub.add_user("owner", "hf_owner"); hub.start(); ...; hub.stop()

``xet=True`` makes the client transfer large files by hf_xet through a ``local://`` store; without it clients must run
with ``HF_HUB_DISABLE_XET=1``.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class HubError(Exception):
    """An answer other than success: status, text, the Hub's own code, further headers."""

    def __init__(self, status: int, text: str, code: str | None = None, **headers: str) -> None:
        super().__init__(text)
        self.status, self.text, self.code, self.headers = status, text, code, headers
        self.body: Any = {"error": text}


@dataclass
class Entry:
    """One file of one commit; ``oid`` is git's SHA-1 (of the pointer, for large files), ``lfs`` the SHA-256."""

    oid: str
    size: int
    lfs: str | None = None
    xet: str | None = None


@dataclass
class Repo:
    """One repository: commits with all their files, branches and tags."""

    id: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, Any]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str:
        """The commit of a branch, a tag or a hash."""
        found = self.branches.get(revision) or self.tags.get(revision) or (revision if revision in self.commits else "")
        if not found:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def files(self, revision: str) -> dict[str, Entry]:
        files: dict[str, Entry] = self.commits[self.resolve(revision)]["files"]
        return files

    def commit(self, files: dict[str, Entry], title: str, branch: str = "main") -> str:
        """Add a commit to a branch."""
        content = json.dumps([title, sorted((p, e.oid) for p, e in files.items()), time.time_ns()])
        oid = hashlib.sha1(content.encode()).hexdigest()
        self.commits[oid] = {"files": dict(files), "title": title, "parent": self.branches.get(branch)}
        self.branches[branch] = oid
        return oid


class Hub:
    """The service: users, repositories, stored files, and the faults that a test asks for.

    Attributes:
        faults: functions of (method, path) that give ``None``, ``"drop"`` (close the connection), or
            (status, headers, body).
        log: (method, path) of every request.
        blob_ids: ``False``: a server that keeps no git hashes, neither in the description nor before an upload.
        names_commits: ``False``: a server that answers with the revision it was asked for in place of the commit.
        may_create: ``False``: nobody may create repositories, not even ones that exist.
        has_collections: ``False``: a server without that address.
    """

    blob_ids = names_commits = may_create = has_collections = True

    def __init__(self, folder: Path, xet: bool = False) -> None:
        self.folder, self.xet = folder, xet
        for name in ("blobs", "lfs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.users: dict[str, tuple[str, str]] = {}
        self.repos: dict[str, Repo] = {}
        self.collections: dict[str, dict[str, Any]] = {}
        self.faults: list[Callable[[str, str], Any]] = []
        self.log: list[tuple[str, str]] = []
        self.lock = threading.RLock()

    def add_user(self, name: str, token: str, role: str = "write") -> None:
        self.users[token] = (name, role)

    def start(self) -> str:
        """Serve on two free ports: the Hub, and another origin for the files, as the real one does."""
        from standin_http import Cdn
        from standin_routes import Routes

        def serve(handler: type) -> http.server.ThreadingHTTPServer:
            bound = type(handler.__name__, (handler,), {"hub": self})
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), bound)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            return server

        self.servers = [serve(Routes), serve(Cdn)]
        self.url = f"http://127.0.0.1:{self.servers[0].server_port}"
        self.cdn_url = f"http://localhost:{self.servers[1].server_port}"
        return self.url

    def stop(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    # stored files

    def add_regular(self, data: bytes) -> Entry:
        """Store a small file as git does."""
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        (self.folder / "blobs" / oid).write_bytes(data)
        return Entry(oid, len(data))

    def add_large(self, sha256: str, size: int) -> Entry:
        """The pointer to a large file that was uploaded before."""
        xet = None
        if not self.lfs(sha256).exists():
            xet = self._xet_hashes().get(sha256) if self.xet else None
            if xet is None:
                raise HubError(400, f"LFS object {sha256} was not uploaded")
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return Entry(hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest(), size, sha256, xet)

    def lfs(self, sha256: str) -> Path:
        return self.folder / "lfs" / sha256

    def content(self, entry: Entry) -> bytes:
        """The bytes of a file; what came through Xet is put together by hf_xet."""
        if entry.lfs is None:
            return (self.folder / "blobs" / entry.oid).read_bytes()
        path = self.lfs(entry.lfs)
        if not path.exists():
            import hf_xet

            with hf_xet.XetSession().new_file_download_group(
                endpoint=self.cas,
                token="t",
                token_expiry_unix_secs=int(time.time()) + 3600,
                token_refresh_url=f"{self.url}/api/models/-/-/xet-read-token/main",
                token_refresh_headers={},
                custom_headers={},
            ) as group:
                group.start_download_file(hf_xet.XetFileInfo(entry.xet, entry.size), f"{path}.part")
            os.replace(f"{path}.part", path)
        return path.read_bytes()

    def seed(self, repo: str, files: dict[str, bytes], **settings: Any) -> str:
        """A repository with these files, put there without the client; its commit."""
        new = self.repos.setdefault(repo, Repo(repo))
        for key, value in settings.items():
            setattr(new, key, value)
        entries = dict(new.files("main")) if new.branches else {}
        for name, data in files.items():
            if name.endswith(".safetensors"):
                digest = hashlib.sha256(data).hexdigest()
                self.lfs(digest).write_bytes(data)
                entries[name] = self.add_large(digest, len(data))
            else:
                entries[name] = self.add_regular(data)
        return new.commit(entries, "seed")

    @property
    def cas(self) -> str:
        return f"local://{self.folder}/cas"

    def _xet_hashes(self) -> dict[str, str]:
        """SHA-256 to Xet hash, read from the shards that hf_xet wrote: 48-byte records behind a header of that size."""

        def hexadecimal(b: bytes) -> str:
            return "".join(f"{v:016x}" for v in struct.unpack("<4Q", b))

        found = {}
        for shard in (self.folder / "cas/xet/xorbs/shards").glob("*.mdb"):
            data, at = shard.read_bytes(), 48
            while at + 48 <= len(data):
                file_hash, flags, count = data[at : at + 32], *struct.unpack("<II", data[at + 32 : at + 40])
                if file_hash == b"\xff" * 32:
                    break
                at += 48 + 48 * count * (2 if flags & 0x80000000 else 1)
                if flags & 0x40000000:  # a record of metadata with the SHA-256 follows
                    found[hexadecimal(data[at : at + 32])] = hexadecimal(file_hash)
                    at += 48
        return found

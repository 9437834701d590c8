"""What the two origins of the stand-in Hub share: reading requests, faults, answers; and the origin of large files."""

from __future__ import annotations

import http.server
import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from standin import Hub, HubError


class Handler(http.server.BaseHTTPRequestHandler):
    """Reads a request, lets the faults of the test have it, and turns a HubError into its answer."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None: ...

    def handle_request(self) -> None:
        url = urlsplit(self.path)
        self.query, length = parse_qs(url.query), int(self.headers.get("content-length") or 0)
        self.body = self._chunks() if self.headers.get("transfer-encoding") == "chunked" else self.rfile.read(length)
        self.hub.log.append((self.command, self.path))
        try:
            for fault in list(self.hub.faults):
                answer = fault(self.command, self.path)
                if answer == "drop":
                    self.close_connection = True
                    self.connection.close()
                    return
                if answer:
                    return self.answer(answer[0], answer[2], **answer[1])
            self.route(url.path)
        except HubError as e:
            code = {"X-Error-Code": e.code} if e.code else {}
            self.answer(e.status, e.body, **e.headers, **code, **{"X-Error-Message": e.text})
        except (BrokenPipeError, ConnectionResetError):
            pass

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_request

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def route(self, path: str) -> None:
        raise NotImplementedError

    def answer(self, status: int, body: Any = b"", **headers: str) -> None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, data: bytes, **headers: str) -> None:
        """A file, or the range of it that was asked for."""
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or ""):
            start, end = int(asked[1]), int(asked[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{min(end, len(data) - 1)}/{len(data)}"
            return self.answer(206, data[start : end + 1], **headers)
        self.answer(200, data, **headers)


class Cdn(Handler):
    """The other origin: large files by their SHA-256."""

    def route(self, path: str) -> None:
        file = self.hub.lfs(path.strip("/"))
        if not file.exists():
            raise HubError(404, "no such object")
        self.send_file(file.read_bytes(), ETag=f'"{path}"')

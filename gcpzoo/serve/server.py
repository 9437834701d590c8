"""The process of a server: its socket, its start, and an end that finishes what was begun."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from gcpzoo.errors import ZooError

GRACE = 30
"""Seconds that answers in work have after SIGTERM or Ctrl-C."""


def bind(host: str, port: int) -> socket.socket:
    """Reserve an address; connections are taken by :func:`run`. Port 0: a free one.

    Raises:
        ZooError: if the address is not to be had.

    >>> with bind("127.0.0.1", 0) as found:
    ...     found.getsockname()[1] > 0
    True
    >>> bind("127.0.0.1", 70000)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: port must be between 0 and 65535, got 70000
    """
    if not 0 <= port <= 65535:
        raise ZooError(f"port must be between 0 and 65535, got {port}")
    if not host:
        raise ZooError("host must be an address such as 127.0.0.1, got ''; 0.0.0.0 stands for all")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ZooError(f"cannot listen on {host} port {port}: {reason}; --port 0 takes a free port") from None
    return found


def url(found: socket.socket) -> str:
    """Give the address of a socket.

    >>> with bind("127.0.0.1", 0) as found:
    ...     url(found)
    'http://127.0.0.1:...'
    """
    host, port = found.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], Any]) -> None:
        super().__init__(config)
        self.ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()


def run(app: Any, found: socket.socket, ready: Callable[[], Any]) -> None:
    """Answer requests until SIGTERM or Ctrl-C, then finish those that have begun.

    Args:
        app: an ASGI application.
        found: of :func:`bind`.
        ready: called when connections are taken.

    Raises:
        KeyboardInterrupt: after Ctrl-C.

    >>> async def app(scope, receive, send): ...
    >>> import os
    >>> run(app, bind("127.0.0.1", 0), lambda: os.kill(os.getpid(), signal.SIGTERM))
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE,
    )
    former = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn sends itself the signal again at the end
    try:
        _Server(config, ready).run(sockets=[found])
    finally:
        signal.signal(signal.SIGTERM, former)
        found.close()

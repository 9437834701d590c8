"""gcpzoo serve: from the first line to SIGTERM."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from image_files import photo

Cli = Callable[..., tuple[int, str, str]]
MODEL = "resnet18_isqrt.digits"


def start_one_and_stop(port: int, body: bytes) -> tuple[int, Any, Any]:
    """Send a request whole, then half of one, then SIGTERM, then the other half; give its status and both answers."""
    begun, other = (http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(2))
    until = time.monotonic() + 30
    while True:
        try:
            begun.connect()
            break
        except ConnectionRefusedError:
            assert time.monotonic() < until
            time.sleep(0.02)
    try:
        begun.request("POST", "/predict?top=1", body)
        first = json.loads(begun.getresponse().read())
        begun.putrequest("POST", "/predict?top=1")
        begun.putheader("Content-Length", str(len(body)))
        begun.endheaders(body[:100])
        taken = 0
        while not taken:
            other.request("GET", "/health")
            taken = json.loads(other.getresponse().read())["taken"]
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # the server is up: it answers the signal
    with contextlib.suppress(OSError):
        while True:  # until nobody is taken in any more
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            time.sleep(0.01)
    begun.send(body[100:])
    answer = begun.getresponse()
    return answer.status, json.loads(answer.read()), first


def test_a_request_that_has_begun_is_answered_after_sigterm(cli: Cli) -> None:
    file = io.BytesIO()
    photo(32, 32).save(file, "png")
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(start_one_and_stop, port, file.getvalue())
        code, out, err = cli("serve", "--model", MODEL, "--port", str(port))
        status, answer, first = future.result(30)
    assert (code, out, err) == (0, f"{MODEL} on http://127.0.0.1:{port}\n", "")
    assert (status, answer) == (200, first)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_port_in_use_is_one_line(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = cli("serve", "--model", MODEL, "--port", str(taken.getsockname()[1]))
    assert (code, err.count("\n")) == (2, 1)
    assert "--port 0 takes a free port" in err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--port", "-1"), ("--threads", "0"), ("--max-mb", "0"), ("--batch-size", "0"), ("--max-wait-ms", "-1"),
     ("--max-queue", "0")],
)  # fmt: skip
def test_numbers_that_cannot_work_are_one_line(cli: Cli, option: str, value: str) -> None:
    code, out, err = cli("serve", "--model", MODEL, "--port", "0", option, value)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{option[2:].replace('-', '_')} must be" in err


@pytest.mark.parametrize("module", ["fastapi", "uvicorn", "python_multipart"])
def test_a_missing_extra_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    for name in list(sys.modules):
        if name.startswith(("gcpzoo.serve.http", "gcpzoo.serve.server", "gcpzoo.serve.schema")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = cli("serve", "--model", MODEL, "--port", "0")
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install 'gcpzoo[serve]'" in err


def test_an_address_that_others_reach_is_warned_of(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcpzoo.serve.server.run", lambda app, found, ready: ready())
    code, out, err = cli("serve", "--model", MODEL, "--port", "0", "--host", "0.0.0.0")
    assert code == 0
    assert out.startswith(f"{MODEL} on http://0.0.0.0:")
    assert "whoever reaches this machine can send requests" in err
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    code, _, err = cli("serve", "--model", MODEL, "--port", "0", "--threads", "3")
    assert (code, err, threads) == (0, "", [3])

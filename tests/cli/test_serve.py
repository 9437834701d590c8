"""gcpzoo serve: from the first line to SIGTERM."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from image_files import photo

Cli = Callable[..., tuple[int, str, str]]
MODEL = "resnet18_isqrt.digits"


def test_a_request_that_has_begun_is_answered_after_sigterm() -> None:
    command = [sys.executable, "-m", "gcpzoo", "serve", "--model", MODEL, "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            host, port = process.stdout.readline().rpartition("//")[2].split(":")
            assert host == "127.0.0.1"
            file = io.BytesIO()
            photo(32, 32).save(file, "png")
            body = file.getvalue()
            connection = http.client.HTTPConnection(host, int(port), timeout=30)
            connection.request("POST", "/predict?top=1", body)
            first = json.loads(connection.getresponse().read())
            connection.putrequest("POST", "/predict?top=1")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:100])
            other = http.client.HTTPConnection(host, int(port), timeout=30)
            taken = 0
            while not taken:
                other.request("GET", "/health")
                taken = json.loads(other.getresponse().read())["taken"]
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(OSError):
                while True:  # until nobody is taken in any more
                    socket.create_connection((host, int(port)), timeout=5).close()
                    time.sleep(0.01)
            connection.send(body[100:])
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())) == (200, first)
            assert process.wait(30) == 0
            assert process.stderr
            assert process.stderr.read() == ""
        finally:
            process.kill()


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
    code, _, err = cli("serve", "--model", MODEL, "--port", "0")
    assert (code, err) == (0, "")

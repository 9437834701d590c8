"""The report in a real browser: headless Chromium without a network. Skipped where there is none."""

from __future__ import annotations

import re
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from chromium import BROWSER, FLAGS, NAMES
from sweep_folder import write_sweep

from gcpzoo.experiments.report import write_report

RENDER = ("--enable-logging=stderr", "--virtual-time-budget=3000")

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser: install Chromium ({', '.join(NAMES)})")


def browse(page: Path, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [str(BROWSER), *FLAGS, *RENDER, f"--user-data-dir={folder}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def console(output: str) -> list[str]:
    return [line for line in output.splitlines() if re.search(r":CONSOLE[:(]", line)]


def corner(png: Path) -> tuple[int, ...]:
    """Color of the first pixel, which no filter of PNG changes: it has no neighbors."""
    data, at, body = png.read_bytes(), 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body += data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    return tuple(zlib.decompress(body)[1:4])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    heads = {"gap": {0: 0.60, 1: 0.62, 2: 0.61}, "isqrt <b>$x^": {0: 0.80, 1: 0.82, 2: 0.81}}
    sweep = write_sweep(folder / "sweep", heads)
    write_report([sweep], [folder / "report.html"], title="Cats & dogs")
    return folder / "report.html"


def test_the_page_renders_without_a_complaint(page: Path, tmp_path: Path) -> None:
    done = browse(page, tmp_path, "--dump-dom")
    assert done.returncode == 0, done.stderr
    assert console(done.stderr) == []
    assert "<h1>Cats &amp; dogs</h1>" in done.stdout
    assert done.stdout.count("<svg") == done.stdout.count("</svg>") == 6


def test_a_page_with_a_mistake_is_complained_about(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<script>nothing.here()</script><img src='https://example.org/a.png'>")
    done = browse(tmp_path / "bad.html", tmp_path / "profile", "--dump-dom")
    assert any("nothing is not defined" in line for line in console(done.stderr))


@pytest.mark.parametrize(("scheme", "back"), [("light", (255, 255, 255)), ("dark", (21, 24, 28))])
def test_the_page_follows_light_and_dark(page: Path, tmp_path: Path, scheme: str, back: tuple[int, ...]) -> None:
    flag = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    done = browse(page, tmp_path, flag, f"--screenshot={tmp_path / 'page.png'}", "--window-size=1000,1600")
    assert done.returncode == 0, done.stderr
    assert corner(tmp_path / "page.png") == back


def test_the_page_prints_on_paper(page: Path, tmp_path: Path) -> None:
    done = browse(page, tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.pdf").read_bytes()[:5] == b"%PDF-"

"""The page of gcpzoo app in a real browser without a network; ``make browser`` runs it and keeps the screenshots.

GCPZOO_SCREENSHOTS names the folder of the screenshots; without it the tests are skipped, which take a minute.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import BROWSER, NAMES, Chromium, Tab
from PIL import Image

from gcpzoo.analysis.embeddings import embed
from gcpzoo.data import Digits
from gcpzoo.serve.page import DIGITS

MODEL = "resnet18_isqrt.digits"
FOLDER = os.environ.get("GCPZOO_SCREENSHOTS", "")
CONTROL = "resnet18_gap.digits"
READY = "document.querySelector('#zoo-digits button') && document.querySelector('#zoo-image button')"

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason=f"no browser: install Chromium ({', '.join(NAMES)})"),
    pytest.mark.skipif(not FOLDER, reason="make browser drives the app"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, which shows the model's GAP control by itself, with the nearest of 300 digits."""
    folder = tmp_path_factory.mktemp("train")
    for i, (pixels, label) in enumerate(Digits().index().splits["train"][:300]):
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(folder / str(label) / f"{i}.png")
    embed(MODEL, folder, workers=0).save(folder / "emb.npz")
    options = ["--model", MODEL, "--embeddings", str(folder / "emb.npz"), "--port", "0"]
    command = [sys.executable, "-m", "gcpzoo", "app", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    yield server.stdout.readline().split()[0]
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 130


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    chromium = Chromium(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


def opened(browser: Chromium, address: str, width: int = 1280, dark: bool = False) -> Tab:
    tab = browser.tab(address, width, 844 if width < 600 else 900, dark)
    tab.wait(READY)
    return tab


def send(tab: Tab, path: Path) -> None:
    """Upload a file as somebody does who clicks on the field."""
    tab.choose("#zoo-image button", path)


def answer(tab: Tab, name: str) -> str:
    """Wait for the answer to a file, and read it."""
    tab.wait(f"document.querySelector('.zoo-look')?.dataset.name == '{name}'")
    return str(tab.run("document.querySelector('#zoo-answer').innerText"))


def keep(tab: Tab, name: str) -> None:
    """Keep a screenshot, after a fresh answer has faded in."""
    time.sleep(1.5)
    tab.screenshot(Path(FOLDER) / f"{name}.png")


@pytest.mark.parametrize(("name", "width", "dark"), [("app", 1280, False), ("app-dark", 1280, True)])
def test_an_uploaded_image_is_answered_beside_the_control(
    browser: Chromium, address: str, name: str, width: int, dark: bool
) -> None:
    tab = opened(browser, address, width, dark)
    send(tab, DIGITS / "7.png")
    text = answer(tab, "7.png")
    for word in (MODEL, CONTROL, "the GAP control", "Grad-CAM", "second order", "Nearest training images"):
        assert word in text
    assert tab.run("document.querySelectorAll('.zoo-model').length") == 2
    assert tab.run("document.querySelector('.zoo-first .zoo-class').innerText") == "7"
    assert tab.run("[...document.images].every(image => image.complete && image.naturalWidth)")
    assert [url for url in tab.addresses() if not url.startswith(("data:", "blob:", address))] == []
    assert tab.complaints() == []
    background = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in background.split("(")[1].strip(")").split(",")[:3]) < 380) == dark
    keep(tab, name)


def test_the_page_fits_a_phone(browser: Chromium, address: str) -> None:
    tab = opened(browser, address, 390)
    send(tab, DIGITS / "3.png")
    answer(tab, "3.png")
    assert tab.run("document.documentElement.scrollWidth") <= 390
    keep(tab, "app-phone")


def test_a_wrong_file_is_a_line_and_the_next_image_is_answered(browser: Chromium, address: str, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes((DIGITS / "7.png").read_bytes()[:60])
    tab = opened(browser, address)
    send(tab, tmp_path / "broken.png")
    tab.wait("document.querySelector('.zoo-error')")
    line = tab.run("document.querySelector('.zoo-error').innerText")
    assert line.startswith("cannot read image broken.png: ")
    assert "\n" not in line
    assert "Traceback" not in tab.run("document.body.innerText")
    tab.run("[...document.querySelectorAll('#zoo-digits button')].find(b => b.innerText.includes('9')).click()")
    answer(tab, "9.png")


def test_two_users_at_once_get_their_own_answers(browser: Chromium, address: str) -> None:
    one, other = opened(browser, address), opened(browser, address)
    send(one, DIGITS / "3.png")
    send(other, DIGITS / "9.png")
    for tab, digit in ((one, "3"), (other, "9")):
        answer(tab, f"{digit}.png")
        assert tab.run("document.querySelector('.zoo-first .zoo-class').innerText") == digit


def test_the_keyboard_reaches_every_control_and_takes_a_digit(browser: Chromium, address: str) -> None:
    tab = opened(browser, address)
    reached = []
    for _ in range(12):
        tab.press("Tab", 9)
        reached.append(
            tab.run("document.activeElement.closest('[id^=zoo-]')?.id + ' ' + document.activeElement.innerText")
        )
        if "zoo-digits" in reached[-1] and "7" in reached[-1]:
            tab.press("Enter", 13)
    answer(tab, "7.png")
    found = " ".join(reached)
    assert all(part in found for part in ("zoo-image", "zoo-digits", "zoo-model", "zoo-beside"))

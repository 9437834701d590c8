"""A headless Chromium without a network, driven by the DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-extensions", "--no-first-run", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--proxy-server=127.0.0.1:9",
)  # fmt: skip
WITH_PIPES = (  # the protocol's descriptors are 3 and 4
    "import fcntl, os, sys; a, b = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]); "
    "os.dup2(a, 3); os.dup2(b, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Chromium:
    """The browser; every tab is a user with a profile of its own."""

    def __init__(self, profile: Path) -> None:
        to_browser, self.output = os.pipe()
        self.input, from_browser = os.pipe()
        command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", WITH_PIPES, str(to_browser), str(from_browser), *command],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.numbers = itertools.count(1)
        self.pending = b""
        self.answers: dict[int, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, timeout: float = 60, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self.output, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout
        while number not in self.answers:
            self.read(end - time.monotonic())
        answer = self.answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def read(self, timeout: float) -> None:
        ready, _, _ = select.select([self.input], [], [], max(0, timeout))
        assert ready, "the browser does not answer"
        *messages, self.pending = (self.pending + os.read(self.input, 2**20)).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self.answers[message["id"]] = message
            else:
                self.events.append(message)

    def tab(self, url: str, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1) -> Tab:
        return Tab(self, url, width, height, dark, scale)

    def close(self) -> None:
        self.call("Browser.close")
        self.process.wait(20)
        os.close(self.input)
        os.close(self.output)


class Tab:
    def __init__(self, browser: Chromium, url: str, width: int, height: int, dark: bool, scale: float) -> None:
        self.browser = browser
        context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def run(self, script: str) -> Any:
        """Evaluate an expression on the page."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, script: str, timeout: float = 60) -> None:
        """Wait until an expression is true on the page."""
        end = time.monotonic() + timeout
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, f"never true: {script}\n{self.run('document.body.innerText')}"
            time.sleep(0.1)

    def choose(self, button: str, *paths: Path) -> None:
        """Click on what opens the system's dialog of files, and answer the dialog."""
        self.call("Page.setInterceptFileChooserDialog", enabled=True)
        before = len(self.events("Page.fileChooserOpened"))
        self.call("Runtime.evaluate", expression=f"document.querySelector({button!r}).click()", userGesture=True)
        end = time.monotonic() + 20
        while len(opened := self.events("Page.fileChooserOpened")) == before:
            assert time.monotonic() < end, f"no dialog of files from {button}"
        files = [str(path) for path in paths]
        self.call("DOM.setFileInputFiles", files=files, backendNodeId=opened[-1]["backendNodeId"])

    def press(self, key: str, code: int) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self, path: Path) -> None:
        """Write the whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def events(self, method: str) -> list[dict[str, Any]]:
        self.run("1")  # what happened before this is read with its answer
        mine = [event for event in self.browser.events if event.get("sessionId") == self.session]
        return [event["params"] for event in mine if event["method"] == method]

    def addresses(self) -> list[str]:
        """All that the page asked the network for."""
        return [event["request"]["url"] for event in self.events("Network.requestWillBeSent")]

    def complaints(self) -> list[str]:
        """Errors of scripts, and what the browser logs as errors."""
        logged = [event["entry"] for event in self.events("Log.entryAdded")]
        found = [f"{entry['text']} {entry.get('url', '')}" for entry in logged if entry["level"] == "error"]
        return found + [str(event["exceptionDetails"]) for event in self.events("Runtime.exceptionThrown")]

"""Ctrl-C and SIGTERM: exit codes, and how a stopped training goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gcpzoo.cli.main import main
from gcpzoo.errors import ZooError

Cli = Callable[..., tuple[int, str, str]]


STOPPED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
from gcpzoo.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_says_how_to_go_on(
    stop: signal.Signals, code: int, small_fit: list[str], tmp_path: Path
) -> None:
    ckpt = tmp_path / "run" / "checkpoints" / "last.ckpt"
    arguments = [*small_fit[:-4], "--trainer.max_epochs", "5000", "--trainer.accelerator", "cpu", "--output", "run"]
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(600):
                time.sleep(0.1)
                if ckpt.exists() or process.poll() is not None:
                    break
            process.send_signal(stop)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code, err
    assert b"the same command with --resume --output run goes on" in err


def test_ctrl_c_while_the_progress_bar_starts_its_thread_is_still_an_interruption(
    cli: Cli, small_fit: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning joins the thread of its bar in its clean-up, which fails: it was never started."""
    started = threading.Thread.start

    def interrupt(thread: threading.Thread) -> None:
        if type(thread).__name__ == "_RefreshThread":
            raise KeyboardInterrupt
        started(thread)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(threading.Thread, "start", interrupt)
    try:
        code, _, err = cli(*small_fit, "--output", "run")
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores it from the first Ctrl-C on
    assert code == 130, err
    assert err.rstrip().endswith("gcpzoo: stopped")


@pytest.mark.parametrize("hidden", [False, True])
def test_ctrl_c_outside_of_a_training_gives_130(
    hidden: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(argv: list[str]) -> int:
        try:
            raise KeyboardInterrupt
        finally:
            if hidden:
                raise ZooError("a clean-up that fails")

    monkeypatch.setattr("gcpzoo.cli.main.run", interrupted)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "gcpzoo: stopped\n"


@pytest.mark.parametrize("arguments", [["list", "--json"], ["list", "--heads"]])
def test_a_closed_pipe_is_no_error(arguments: list[str]) -> None:
    """As in ``gcpzoo list | head``, whose reader leaves before all is written."""
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_defect_of_ours_is_raised_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(argv: list[str]) -> int:
        raise RuntimeError("a defect")

    monkeypatch.setattr("gcpzoo.cli.main.run", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        main(["list"])


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def lacking(argv: list[str]) -> int:
        raise ModuleNotFoundError("No module named 'timm'")

    monkeypatch.setattr("gcpzoo.cli.main.run", lacking)
    assert main(["list"]) == 2
    assert "No module named 'timm'; the installation is incomplete" in capsys.readouterr().err


def test_a_training_whose_output_nobody_reads_says_so_in_one_line(
    small_fit: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in ``gcpzoo fit … | head``; rich ends the process itself where its progress bar finds out."""

    def closed(argv: list[str]) -> int:
        try:
            raise BrokenPipeError
        except BrokenPipeError:
            raise SystemExit(1) from None

    monkeypatch.setattr("gcpzoo.cli.main.run", closed)
    assert main(small_fit) == 141
    assert capsys.readouterr().err == "gcpzoo: stopped, as nobody reads the output: let it go to a file\n"

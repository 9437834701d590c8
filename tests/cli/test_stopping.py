"""Ctrl-C and SIGTERM: exit codes, and how a stopped training goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

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
    assert b"--ckpt_path run/checkpoints/last.ckpt goes on after its last epoch" in err

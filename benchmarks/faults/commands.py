"""The command line as a user runs it, in processes that can be killed, and the comparison of what two runs left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

MAIN = "import sys; from gcpzoo.cli.main import main; sys.exit(main(sys.argv[1:]))"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000"}
MODEL = ["--model.backbone", "resnet18", "--model.until", "layer1", "--model.dim", "8"]
QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
FIT = [
    "fit", "--data", "Digits", "--data.batch_size", "16", "--data.workers", "2", "--data.val_fraction", "0.1",
    "--data.augment.randaugment", "5", "--data.augment.erasing", "0.2", *MODEL, "--model.dropout", "0.3",
    "--model.mixup_alpha", "0.4", "--model.cutmix_alpha", "0.4", *QUIET, "--trainer.max_epochs", "3",
    "--trainer.limit_train_batches", "12", "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging",
    "--trainer.callbacks.decay", "0.9", "--trainer.callbacks+=gcpzoo.training.CovarianceSpectrum",
    "--checkpoint.every_n_train_steps", "2",
]  # fmt: skip
"""A training with everything that is random: augmentation, mixing, dropout and workers; with averaged weights."""


@dataclass
class Fault:
    """One injected fault and what came of it.

    Attributes:
        kind: row of the report.
        what: what was done.
        lost: what was lost or wrong; empty: nothing.
        seconds: from the restart to the first new checkpoint, or to the answer.
    """

    kind: str
    what: str
    lost: str = ""
    seconds: float | None = None


@dataclass
class Outcome:
    """Exit code, output and seconds of a command."""

    code: int
    text: str
    seconds: float
    restarted: float | None = field(default=None)


def run(
    *arguments: object,
    stop: Callable[[subprocess.Popen[str]], None] | None = None,
    sign: int = signal.SIGKILL,
    group: bool = True,
    watch: Path | None = None,
    **kwargs: Any,
) -> Outcome:
    """Run a command; ``stop`` waits for the moment of the signal.

    Args:
        arguments: of the command line.
        stop: waits, given the process; then the signal is sent. null: the command runs to its end.
        sign: the signal.
        group: send it to the command's worker processes too.
        watch: file whose first change is timed.
        kwargs: of ``subprocess.Popen``.
    """
    start = time.perf_counter()
    before = stamp(watch)
    command = [sys.executable, "-c", MAIN, *map(str, arguments)]
    options = {"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **kwargs}
    process = subprocess.Popen(command, start_new_session=True, **options)
    if stop:
        stop(process)
        if process.poll() is None:
            (os.killpg if group else os.kill)(process.pid, sign)
    restarted = None
    while watch and process.poll() is None and restarted is None:
        time.sleep(0.02)
        if stamp(watch) != before:
            restarted = time.perf_counter() - start
    text, _ = process.communicate()
    return Outcome(process.returncode, text or "", time.perf_counter() - start, restarted)


def stamp(path: Path | None) -> int | None:
    """Return when a file was last written; ``None``: there is none."""
    try:
        return path.stat().st_mtime_ns if path else None
    except FileNotFoundError:
        return None


def last(run_folder: Path) -> Path:
    return run_folder / "checkpoints" / "last.ckpt"


def differences(a: Path, b: Path) -> list[str]:
    """Name everything in which two runs differ: checkpoint with optimizer and averages, report, results."""
    first, second = (torch.load(last(f), weights_only=False) for f in (a, b))
    found = list(_differences(first, second, "checkpoint"))
    for name in ("metrics.json", "spectrum.json"):
        first, second = (json.loads((f / name).read_text()) for f in (a, b))
        found += _differences(first, second, name)
    return found


def _differences(a: Any, b: Any, path: str) -> list[str]:
    if path.rpartition(".")[2] in ("seconds", "hparams_name"):
        return []
    if isinstance(a, torch.Tensor):
        return [] if isinstance(b, torch.Tensor) and torch.equal(a, b) else [path]
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted(a.keys() | b.keys(), key=str)
        return [d for k in keys for d in _differences(a.get(k), b.get(k), f"{path}.{k}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in _differences(x, y, f"{path}.{i}")]
    return [] if a == b else [path]


def verdict(outcome: Outcome, code: int, *words: str) -> str:
    """Say what is wrong with an answer: another exit code, a traceback, or a word that is missing; empty: nothing."""
    if outcome.code != code:
        return f"exit code {outcome.code} instead of {code}: {outcome.text[-300:]!r}"
    if "Traceback" in outcome.text:
        return f"a traceback: {outcome.text[-300:]!r}"
    missing = [word for word in words if word not in outcome.text]
    return f"{missing[0]!r} is not said: {outcome.text[-300:]!r}" if missing else ""

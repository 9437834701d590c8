"""Runs for the tests of resuming: their options, what a kill at a moment leaves of them, and their comparison."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gcpzoo.training import RunReport

Place = tuple[int, int]
"""An epoch and a batch in it."""
NINE_BATCHES = [
    "--data.workers", "0", "--data.batch_size", "2", "--data.image_size", "32", "--data.check", "false",
    "--model.backbone", "resnet18", "--model.until", "layer1", "--model.dim", "8", "--model.optimizer.lr", "0.05",
    "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
    "--checkpoint.every_n_train_steps", "2",
]  # fmt: skip
"""Two epochs of nine batches, with a checkpoint after every second."""
RANDOM = [
    "--data.workers", "2", "--data.augment.randaugment", "5", "--data.augment.erasing", "0.5",
    "--model.mixup_alpha", "0.4", "--model.cutmix_alpha", "0.4", "--model.dropout", "0.3",
    "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging", "--trainer.callbacks.decay", "0.9",
    "--trainer.callbacks+=gcpzoo.training.CovarianceSpectrum",
]  # fmt: skip
"""With these every part of a training that draws random numbers does."""


class Moments:
    """The batches that trainings of this process start, and what is done at a chosen one, or before the final test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Place] = []
        self.acts: dict[Place | str, Callable[[], object]] = {}
        monkeypatch.setattr(RunReport, "on_train_batch_start", self._on_train_batch_start)
        monkeypatch.setattr(RunReport, "on_test_start", lambda *_: self._act("test"))

    def copy(self, run: Path, at: Place | str) -> Path:
        """Copy the run's folder at a moment: what SIGKILL would leave."""
        left = run.with_name(f"{run.name}-{at}")
        self.acts[at] = lambda: shutil.copytree(run, left)
        return left

    def _on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._act((trainer.current_epoch, batch_idx))
        self.seen.append((trainer.current_epoch, batch_idx))

    def _act(self, at: Place | str) -> None:
        self.acts.pop(at, lambda: None)()


def read_checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Name every value of nested mappings and lists that is not the same bit for bit, but for times."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield name
    elif isinstance(one, dict) and isinstance(other, dict):
        yield from (f"{name}.{key}" for key in one.keys() ^ other.keys())
        for key in one.keys() & other.keys() - {"seconds"}:
            yield from differences(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other)):
            yield from differences(a, b, f"{name}[{i}]")
    elif one != other or type(one) is not type(other):
        yield f"{name}: {one!r} and {other!r}"


def assert_same_results(one: Path, other: Path) -> None:
    """Compare all of the last checkpoints, and ``metrics.json`` but for its times."""
    assert list(differences(read_checkpoint(one), read_checkpoint(other))) == []
    reports = [json.loads((run / "metrics.json").read_text()) for run in (one, other)]
    assert list(differences(*reports)) == []

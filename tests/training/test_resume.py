"""A training that is stopped at any moment and resumed ends as the uninterrupted one, bit by bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_files import RANDOM, assert_same_results, read_checkpoint

from gcpzoo.training import RunReport

Cli = Callable[..., tuple[int, str, str]]
Place = tuple[int, int]
"""An epoch and a batch in it."""
STAGED = ["--trainer.callbacks+=gcpzoo.training.StagedUnfreezing", "--trainer.callbacks.unfreeze_at=1"]
HYBRID = ["--trainer.callbacks+=gcpzoo.training.HybridRoot", "--trainer.callbacks.epoch=1"]
EVERY_2 = ["--checkpoint.every_n_train_steps", "2"]


class Stopped(BaseException):
    """Ends a training as a kill does: nothing of ours may handle it."""


class Batches:
    """The batches that a training starts, and the one at which something happens."""

    def __init__(self) -> None:
        self.seen: list[Place] = []
        self.at: Place | None = None
        self.act: Callable[[], None] = self.stop

    @staticmethod
    def stop() -> None:
        raise Stopped

    def start(self, report: RunReport, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        place = trainer.current_epoch, batch_idx
        if place == self.at:
            self.act()
        self.seen.append(place)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    batches = Batches()
    monkeypatch.setattr(RunReport, "on_train_batch_start", lambda *arguments: batches.start(*arguments))
    return batches


@pytest.fixture
def small(folder: Path) -> list[str]:
    """Arguments of a fit of two epochs with nine batches each."""
    return [
        "fit", "--data", "ImageFolder", "--data.root", str(folder), "--data.workers", "0", "--data.batch_size", "2",
        "--data.image_size", "32", "--data.check", "false", "--model.backbone", "resnet18", "--model.until", "layer1",
        "--model.dim", "8", "--model.optimizer.lr", "0.05", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu",
        "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip


def kill(cli: Cli, batches: Batches, at: Place, *arguments: str) -> None:
    batches.seen, batches.at = [], at
    with pytest.raises(Stopped):
        cli(*arguments)
    batches.at = None


def resumed(cli: Cli, batches: Batches, *arguments: str) -> str:
    """Run a command again with ``--resume``; the output and error output."""
    batches.seen = []
    code, out, err = cli(*arguments, "--resume")
    assert code == 0, err
    return out + err


@pytest.mark.parametrize(
    ("options", "at", "first"),
    [
        (RANDOM, (0, 5), (0, 4)),
        ([*RANDOM, "--model.frozen", "[conv1, bn1]"], (1, 8), (1, 8)),
        (["--trainer.accumulate_grad_batches", "2"], (1, 7), (1, 4)),
        (["--trainer.val_check_interval", "0.45"], (0, 5), (0, 2)),
        (["--trainer.limit_train_batches", "5", "--trainer.precision", "bf16-mixed"], (1, 4), (1, 4)),
        (["--model.schedule.interval", "step", "--model.schedule.warmup_epochs", "1"], (0, 5), (0, 4)),
        ([*STAGED, "--trainer.callbacks.lr_factor=0.1"], (0, 5), (0, 4)),
        ([*STAGED, "--trainer.callbacks.lr_factor=0.1", "--model.frozen", "[conv1, bn1]"], (1, 5), (1, 4)),
        (HYBRID, (1, 4), (1, 4)),
    ],
)
def test_a_run_stopped_in_the_middle_of_an_epoch_ends_as_the_uninterrupted_one(
    options: list[str], at: Place, first: Place, cli: Cli, batches: Batches, small: list[str], tmp_path: Path
) -> None:
    arguments = [*small, *EVERY_2, "--evaluate", "false", *options, "--output"]
    assert cli(*arguments, "full")[0] == 0
    whole = batches.seen
    kill(cli, batches, at, *arguments, "run")
    resumed(cli, batches, *arguments, "run")
    assert batches.seen == whole[whole.index(first) :]
    assert_same_results(tmp_path / "full", tmp_path / "run")

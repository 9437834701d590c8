"""After which steps and minutes a training writes its checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from run_files import Moments

from gcpzoo.training import RunCheckpoints, RunReport, checkpoints
from gcpzoo.training.checkpoints import WholeCheckpointIO

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Notes the optimizer steps after which a checkpoint is written, and "validation" for every one."""
    found: list[Any] = []
    write = RunCheckpoints._write

    def note(self: RunCheckpoints, trainer: Any) -> None:
        found.append(trainer.global_step)
        write(self, trainer)

    monkeypatch.setattr(RunCheckpoints, "_write", note)
    monkeypatch.setattr(RunReport, "on_validation_start", lambda self, trainer, _: found.append("validation"))
    return found


def test_checkpoints_are_written_every_so_many_minutes(
    plain: list[str], cli: Cli, moments: Moments, written: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: 15.0 * len(moments.seen)))
    options = ("--checkpoint.every_n_train_steps", 0, "--checkpoint.every_minutes", 0.75, "--evaluate", "false")
    assert cli(*plain, *options, "--trainer.num_sanity_val_steps", 0, "--output", "run")[0] == 0
    assert written == [3, 6, "validation", 9, 12, 15, "validation", 18]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [1, 2, 3, 4, 5, 6, 7, 8, "validation", 9, *range(10, 18), "validation", 18]),
        (
            ["--trainer.val_check_interval", "4", "--trainer.check_val_every_n_epoch", "null"],
            [1, 2, 3, "validation", 5, 6, 7, "validation", 9, 10, 11, "validation", 13, 14, 15, "validation", 17, 18],
        ),
        (["--trainer.accumulate_grad_batches", "3"], [1, 2, "validation", 3, 4, 5, "validation", 6]),
    ],
)
def test_no_checkpoint_is_written_between_a_step_and_the_validation_after_it(
    options: list[str], expected: list[Any], plain: list[str], cli: Cli, written: list[Any]
) -> None:
    quick = ("--checkpoint.every_n_train_steps", 1, "--evaluate", "false", "--trainer.num_sanity_val_steps", 0)
    code, _, err = cli(*plain, *quick, *options, "--output", "run")
    assert code == 0, err
    assert written == expected


def test_ctrl_c_while_a_checkpoint_is_written_takes_effect_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def interrupted(*args: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        save(*args)

    monkeypatch.setattr(torch, "save", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            WholeCheckpointIO().save_checkpoint({"step": 3}, tmp_path / "last.ckpt")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert torch.load(tmp_path / "last.ckpt") == {"step": 3}

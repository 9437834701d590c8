"""Where ``--resume`` has nothing to go on with, where it does not belong, and a training that is made longer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from run_files import Moments

from gcpzoo.training import RunReport

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(("schedule", "interval"), [("cosine", "epoch"), ("polynomial", "step")])
def test_a_longer_training_goes_on_at_the_rate_of_its_own_schedule(
    schedule: str, interval: str, plain: list[str], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs end at a rate of zero, from which a cosine would rise again and a product never."""
    rates: list[float] = []
    monkeypatch.setattr(
        RunReport,
        "on_train_batch_start",
        lambda self, trainer, *_: rates.append(trainer.optimizers[0].param_groups[0]["lr"]),
    )
    fit = [
        *plain, "--model.schedule.name", schedule, "--model.schedule.interval", interval, "--evaluate", "false",
        "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "0",
    ]  # fmt: skip
    assert cli(*fit, "--trainer.max_epochs", 5, "--output", "whole")[0] == 0
    whole = rates[:]
    assert cli(*fit, "--output", "run")[0] == 0
    rates.clear()
    code, _, err = cli(*fit, "--trainer.max_epochs", 5, "--output", "run", "--resume")
    assert code == 0, err
    assert rates == pytest.approx(whole[4:], rel=1e-6)


@pytest.mark.parametrize(
    ("command", "options"),
    [("fit", []), ("fit", ["--output", "run", "--ckpt_path", __file__]), ("test", ["--output", "run"])],
)
def test_resume_belongs_to_a_fit_with_an_output(command: str, options: list[str], plain: list[str], cli: Cli) -> None:
    arguments = plain[1:-2] if command == "test" else plain[1:]
    code, _, err = cli(command, *arguments, *options, "--resume")
    assert code == 2
    assert "--resume belongs to 'gcpzoo fit … --output DIR', without --ckpt_path" in err


def test_resume_starts_where_there_is_nothing_and_removes_what_a_kill_left(
    plain: list[str], cli: Cli, moments: Moments, tmp_path: Path
) -> None:
    leftovers = [tmp_path / "run" / ".writing-a.json", tmp_path / "run/checkpoints" / ".writing-b.ckpt"]
    for file in leftovers:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    code, _, err = cli(*plain, "--trainer.max_epochs", 1, "--evaluate", "false", "--output", "run", "--resume")
    assert code == 0, err
    assert moments.seen[0] == (0, 0)
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    assert not any(file.exists() for file in leftovers)


def test_resume_starts_again_only_the_run_that_a_folder_holds(plain: list[str], cli: Cli, tmp_path: Path) -> None:
    """A kill in the first epoch leaves options, and perhaps a report, without a checkpoint."""
    fit = [*plain, "--trainer.max_epochs", 1, "--trainer.limit_train_batches", 2, "--evaluate", "false"]
    arguments = [*fit, "--output", "run", "--resume"]
    assert cli(*arguments)[0] == 0
    shutil.rmtree(tmp_path / "run/checkpoints")
    code, _, err = cli(*arguments, "--model.dropout", 0.5)
    assert code == 2
    assert "model.dropout=0.0, this command 0.5" in err
    assert cli(*arguments)[0] == 0
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    (tmp_path / "run/config.yaml").unlink()
    code, _, err = cli(*arguments)
    assert code == 2
    assert "config.yaml is missing" in err

"""A training that is stopped at any moment and resumed ends as the uninterrupted one, bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from run_files import RANDOM, Moments, Place, assert_same_results, read_checkpoint

from gcpzoo.cli.main import main
from gcpzoo.training import RunReport

Cli = Callable[..., tuple[int, str, str]]
STAGED = [
    "--trainer.callbacks+=gcpzoo.training.StagedUnfreezing", "--trainer.callbacks.unfreeze_at=1",
    "--trainer.callbacks.lr_factor=0.1",
]  # fmt: skip
HYBRID = ["--trainer.callbacks+=gcpzoo.training.HybridRoot", "--trainer.callbacks.epoch=1"]
KALMAN = ["--model.blocks", '{"kalman_norm": {"split_num": 2, "rate": 0.9}}']
EARLY = [
    "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping", "--trainer.callbacks.monitor=val/top1",
    "--trainer.callbacks.mode=max", "--trainer.callbacks.min_delta=10", "--trainer.callbacks.patience=2",
    "--trainer.max_epochs", "5",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(plain: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """An uninterrupted run with all that is random, and what it had written at some moments."""
    run = tmp_path_factory.mktemp("whole") / "full"
    with pytest.MonkeyPatch.context() as patch:
        moments = Moments(patch)
        left = {at: moments.copy(run, at) for at in ((0, 5), (1, 5), "test")}
        assert main([*plain, *RANDOM, "--output", str(run)]) == 0
        yield SimpleNamespace(run=run, left=left, seen=moments.seen, arguments=[*plain, *RANDOM])


@pytest.fixture
def left(whole: SimpleNamespace, tmp_path: Path) -> Path:
    """The run as it was in the middle of the second epoch, as ``run`` in the current folder."""
    shutil.copytree(whole.left[1, 5], tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(("at", "first", "workers"), [((0, 5), (0, 4), 2), ((1, 5), (1, 4), 0)])
def test_a_resumed_run_sees_the_same_random_images_whatever_the_workers(
    at: Place, first: Place, workers: int, whole: SimpleNamespace, cli: Cli, moments: Moments, tmp_path: Path
) -> None:
    shutil.copytree(whole.left[at], tmp_path / "run")
    code, _, err = cli(*whole.arguments, "--data.workers", workers, "--output", "run", "--resume")
    assert code == 0, err
    assert moments.seen == whole.seen[whole.seen.index(first) :]
    assert_same_results(whole.run, tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "at", "first"),
    [
        (["--trainer.accumulate_grad_batches", "2", "--model.frozen", "[conv1, bn1]"], (1, 7), (1, 4)),
        (["--trainer.val_check_interval", "0.6"], (0, 7), (0, 6)),
        (["--trainer.limit_train_batches", "5", "--trainer.precision", "bf16-mixed"], (1, 4), (1, 4)),
        (["--model.schedule.interval", "step", "--model.schedule.warmup_epochs", "1"], (0, 5), (0, 4)),
        (STAGED, (0, 5), (0, 4)),
        ([*STAGED, "--model.frozen", "[conv1, bn1]"], (1, 5), (1, 4)),
        (HYBRID, (1, 4), (1, 4)),
        (KALMAN, (1, 5), (1, 4)),
        (EARLY, (2, 3), (2, 2)),
    ],
)
def test_a_run_stopped_in_the_middle_of_an_epoch_ends_as_the_uninterrupted_one(
    options: list[str], at: Place, first: Place, cli: Cli, moments: Moments, plain: list[str], tmp_path: Path
) -> None:
    arguments = [*plain, "--evaluate", "false", *options, "--output"]
    left = moments.copy(tmp_path / "full", at)
    assert cli(*arguments, "full")[0] == 0
    seen, moments.seen = moments.seen, []
    code, _, err = cli(*arguments, left, "--resume")
    assert code == 0, err
    assert moments.seen == seen[seen.index(first) :]
    assert_same_results(tmp_path / "full", left)


def test_a_killed_process_leaves_a_run_that_goes_on_exactly(whole: SimpleNamespace, cli: Cli, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gcpzoo.cli.main", *whole.arguments, "--output", "run"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "GCPZOO_"))}
    path = str(Path(__file__).parents[2])
    with subprocess.Popen(
        command, env=environment | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while not (tmp_path / "run/checkpoints/last.ckpt").exists() and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)  # its workers too
    assert process.returncode == -signal.SIGKILL
    code, _, err = cli(*whole.arguments, "--output", "run", "--resume")
    assert code == 0, err
    assert_same_results(whole.run, tmp_path / "run")


def test_a_run_stopped_before_its_test_evaluates_the_averaged_weights(
    whole: SimpleNamespace, cli: Cli, moments: Moments, tmp_path: Path
) -> None:
    shutil.copytree(whole.left["test"], tmp_path / "run")
    assert cli(*whole.arguments, "--output", "run", "--resume")[0] == 0
    assert moments.seen == []
    assert_same_results(whole.run, tmp_path / "run")
    for name, run in (("one", whole.run), ("other", tmp_path / "run")):
        code, _, err = cli(
            "predict", *whole.arguments[1:9], "--ckpt_path", run / "checkpoints/last.ckpt", "--output", name
        )
        assert code == 0, err
    assert (tmp_path / "one/predictions.csv").read_text() == (tmp_path / "other/predictions.csv").read_text()


def test_a_finished_run_is_left_as_it_is(whole: SimpleNamespace, cli: Cli) -> None:
    def files() -> dict[Path, tuple[bytes, int]]:
        return {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in whole.run.rglob("*") if f.is_file()}

    before = files()
    code, out, err = cli(*whole.arguments, "--output", whole.run, "--resume")
    assert code == 0, err
    assert f"the run in {whole.run} has finished: nothing to do" in out
    assert files() == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_checkpoint_is_named_and_the_former_taken(
    damage: Callable[[Path], None], whole: SimpleNamespace, left: Path, cli: Cli, moments: Moments
) -> None:
    damage(left / "checkpoints/last.ckpt")
    code, _, err = cli(*whole.arguments, "--output", "run", "--resume")
    assert code == 0, err
    assert "run/checkpoints/last.ckpt is damaged; going on from run/checkpoints/former.ckpt" in err
    assert moments.seen[0] == (1, 2)
    assert_same_results(whole.run, left)


def test_two_damaged_checkpoints_are_an_error(whole: SimpleNamespace, left: Path, cli: Cli) -> None:
    cut(left / "checkpoints/last.ckpt")
    flip(left / "checkpoints/former.ckpt")
    code, _, err = cli(*whole.arguments, "--output", "run", "--resume")
    assert code == 2
    assert "last.ckpt and run/checkpoints/former.ckpt are damaged" in err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--model.optimizer.lr", "0.01"), "model.optimizer.lr=0.05, this command 0.01"),
        (("--data.batch_size", "3"), "data.init_args.batch_size=2, this command 3"),
        (("--seed_everything", "1"), "seed_everything=0, this command 1"),
    ],
)
def test_another_option_than_the_runs_is_refused_with_both_values(
    option: tuple[str, str], message: str, whole: SimpleNamespace, left: Path, cli: Cli, moments: Moments
) -> None:
    code, _, err = cli(*whole.arguments, *option, "--output", "run", "--resume")
    assert code == 2
    assert message in err
    assert moments.seen == []


def test_options_that_an_older_version_did_not_have_count_as_their_defaults(
    whole: SimpleNamespace, left: Path, cli: Cli
) -> None:
    config = yaml.safe_load((left / "config.yaml").read_text())
    del config["generations"], config["model"]["distillation"]
    (left / "config.yaml").write_text(yaml.safe_dump(config))
    resume = (*whole.arguments, "--output", "run", "--resume")
    code, _, err = cli(*resume, "--model.distillation.weight", "0.5")
    assert code == 2
    assert "model.distillation.weight=0.9, this command 0.5" in err
    assert cli(*resume)[0] == 0
    assert_same_results(whole.run, left)


def test_length_and_output_may_change(whole: SimpleNamespace, left: Path, cli: Cli, moments: Moments) -> None:
    changed = (
        "--trainer.max_epochs", 3, "--trainer.log_every_n_steps", 1, "--checkpoint.every_n_train_steps", 0,
        "--data.workers", 0,
    )  # fmt: skip
    left.rename(left.with_name("moved"))
    code, _, err = cli(*whole.arguments, *changed, "--output", "moved", "--resume")
    assert code == 0, err
    assert moments.seen[0] == (1, 4)
    assert moments.seen[-1] == (2, 8)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_writes_a_checkpoint_of_the_very_step(
    whole: SimpleNamespace, cli: Cli, moments: Moments, tmp_path: Path
) -> None:
    moments.acts[0, 6] = terminate
    arguments = [*whole.arguments, "--checkpoint.every_n_train_steps", "0", "--output", "run", "--resume"]
    code, _, err = cli(*arguments)
    assert code == 143
    assert "the same command with --resume --output run goes on" in err
    assert read_checkpoint(tmp_path / "run")["global_step"] == 7
    moments.seen = []
    code, _, err = cli(*arguments)
    assert code == 0, err
    assert moments.seen[0] == (0, 7)
    assert_same_results(whole.run, tmp_path / "run")


def test_sigterm_in_the_final_test_ends_it_at_once(
    whole: SimpleNamespace, cli: Cli, moments: Moments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole.left["test"], tmp_path / "run")
    tested: list[int] = []
    monkeypatch.setattr(RunReport, "on_test_batch_start", lambda *arguments: tested.append(arguments[-2]))
    moments.acts["test"] = terminate
    code, _, _ = cli(*whole.arguments, "--output", "run", "--resume")
    assert code == 143
    assert tested == []
    assert cli(*whole.arguments, "--output", "run", "--resume")[0] == 0
    assert_same_results(whole.run, tmp_path / "run")

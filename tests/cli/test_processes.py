"""Two processes on one CPU, through the command line, do what one process does."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from image_files import draw
from run_files import assert_same_results, read_checkpoint

Cli = Callable[..., tuple[int, str, str]]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
NETWORK = [
    "--model.backbone", "resnet18", "--model.until", "layer1", "--model.dim", "null",
    "--model.frozen", "[bn1, layer1.0.bn1, layer1.0.bn2, layer1.1.bn1, layer1.1.bn2]", "--model.optimizer.lr", "0.005",
]  # fmt: skip
TRAINER = ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
TRACED = """
import json, os, shutil, sys
from pathlib import Path
from types import SimpleNamespace
from gcpzoo.cli.main import main
from gcpzoo.training import ClassificationTask, RunCheckpoints, RunReport, hybrid_root

rank, losses, calls = int(os.environ.get("LOCAL_RANK", 0)), [], []
step, write = ClassificationTask.training_step, RunCheckpoints._write

def training_step(self, *arguments):
    losses.append(step(self, *arguments))
    return losses[-1]

def condition(model, images):  # the processes do not agree in the first epoch
    calls.append(1)
    return SimpleNamespace(condition_nonzero=1e9 if len(calls) == 1 and rank == 1 else 1.0)

def at_end(report, trainer, pl_module):
    values = {"losses": [loss.item() for loss in losses], "root": pl_module.model.head.root}
    Path(trainer.default_root_dir, f"rank{rank}.json").write_text(json.dumps(values))

def copy(self, trainer):  # what a kill in the middle of the second epoch leaves
    write(self, trainer)
    if rank == 0 and trainer.global_step == 15 and not Path("left").exists():
        shutil.copytree(trainer.default_root_dir, "left")

ClassificationTask.training_step, RunCheckpoints._write = training_step, copy
RunReport.on_train_end, hybrid_root.covariance_summary = at_end, condition
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
KEEP = """
import torch
from lightning.pytorch.callbacks import Callback

class Keep(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        torch.save(pl_module.model.state_dict(), f"epoch{trainer.current_epoch}-rank{trainer.global_rank}.pt")
"""


def in_two(folder: Path, *arguments: str) -> None:
    """Run a command line in two processes."""
    (folder / "traced.py").write_text(TRACED)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "GCPZOO_", "LOCAL_RANK"))}
    path = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(folder)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "traced.py", *arguments, *TWO], cwd=folder, env=kept | path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def images(folder: Path) -> list[str]:
    """40 images to train on, and 7 to test on, which two processes cannot share evenly."""
    for split, counts in (("train", (14, 13, 13)), ("val", (2, 2, 2)), ("test", (3, 2, 2))):
        for label, (name, count) in enumerate(zip(("north", "east", "south"), counts)):
            for k in range(count):
                draw(folder / "images" / split / name / f"{k}.png", label, seed=k + 100 * len(split))
    return [
        "--data", "ImageFolder", "--data.root", "images", "--data.workers", "0", "--data.image_size", "32",
        "--data.augment.randaugment", "5",
    ]  # fmt: skip


def hybrid(option: str) -> list[str]:
    return ["--trainer.callbacks+=gcpzoo.training.HybridRoot", f"--trainer.callbacks.{option}"]


FIT = ["--data.batch_size", "2", "--checkpoint.every_n_train_steps", "5", *NETWORK, *TRAINER, *hybrid("condition=10")]


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and ``full``, a run of 20 steps in two processes; made once for all workers of pytest."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "two_processes"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            in_two(folder, "fit", *images(folder), *FIT, "--output", "full")
    return folder


@pytest.fixture
def data(pair: Path, tmp_path: Path) -> list[str]:
    """Options of the images, for a command line in a folder of its own."""
    (tmp_path / "images").symlink_to(pair / "images")
    return images(tmp_path)


def test_two_processes_train_and_test_as_one_with_twice_the_batch(pair: Path, data: list[str], cli: Cli) -> None:
    fit = [*NETWORK, *TRAINER, *hybrid("epoch=1")]
    code, _, err = cli("fit", *data, "--data.batch_size", 4, *fit, "--output", "one")
    assert code == 0, err
    one, two = (read_checkpoint(run) for run in (Path("one"), pair / "full"))
    assert one["global_step"] == two["global_step"] == 20
    for name, weight in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], weight, rtol=0, atol=1e-5, msg=name)
    reports = [json.loads((run / "metrics.json").read_text()) for run in (Path("one"), pair / "full")]
    assert [report["test"]["images"] for report in reports] == [7, 7]
    for one_row, two_row in zip(*(report["fit"]["history"] for report in reports), strict=True):
        one_row["seconds"] = two_row["seconds"]
        assert two_row == pytest.approx(one_row, abs=1e-5)
    for name in ("loss", "top1", "top5", "per_class"):
        assert reports[1]["test"][name] == pytest.approx(reports[0]["test"][name], abs=1e-5)
    assert reports[1]["test"]["accuracy_of_class"] == reports[0]["test"]["accuracy_of_class"]
    tables = [list(csv.DictReader((run / "test_predictions.csv").open())) for run in (Path("one"), pair / "full")]
    assert len(tables[0]) == 7
    for one_row, two_row in zip(*tables, strict=True):
        for key in ("class", "true_class"):
            assert one_row[key] == two_row[key]
        assert Path(one_row["path"]).resolve() == Path(two_row["path"]).resolve()


def test_the_root_is_switched_in_all_processes_when_the_last_one_is_ready(pair: Path) -> None:
    """The first process was ready an epoch before the second."""
    ranks = [json.loads((pair / f"full/rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["root"] for rank in ranks] == ["svd_pade", "svd_pade"]
    assert ranks[0]["losses"] != ranks[1]["losses"]  # each has its own share
    states = read_checkpoint(pair / "full")["callbacks"]
    assert [state["switched"] for name, state in states.items() if name.startswith("HybridRoot")] == [1]


def test_two_processes_go_on_exactly_in_the_middle_of_an_epoch(pair: Path, data: list[str], cli: Cli) -> None:
    code, _, err = cli("fit", *data, *FIT, "--output", pair / "left", "--resume")
    assert code == 2
    assert "is from the middle of an epoch with 4 images a step over all processes, this run has 2" in err
    in_two(pair, "fit", *data, *FIT, "--output", "left", "--resume")
    assert_same_results(pair / "full", pair / "left")


def test_two_processes_predict_every_image_once(pair: Path, data: list[str], cli: Cli) -> None:
    arguments = ["predict", *data, "--data.batch_size", "2", "--trainer.accelerator", "cpu", "--ckpt_path"]
    checkpoint = str(pair / "full/checkpoints/last.ckpt")
    in_two(pair, *arguments, checkpoint, "--output", "two")
    code, _, err = cli(*arguments, checkpoint, "--output", "one")
    assert code == 0, err
    written = (pair / "two/predictions.csv").read_text()
    assert written == Path("one/predictions.csv").read_text()
    assert len(written.splitlines()) == 1 + 7


def test_two_generations_in_two_processes_are_those_of_one_with_twice_the_batch(
    pair: Path, data: list[str], cli: Cli
) -> None:
    fit = ["fit", *data, *NETWORK, *TRAINER, "--trainer.max_epochs", "1", "--generations", "2"]
    code, _, err = cli(*fit, "--data.batch_size", 4, "--output", "one-born")
    assert code == 0, err
    in_two(pair, *fit, "--data.batch_size", "2", "--output", "two-born")
    one, two = Path("one-born"), pair / "two-born"
    for run in ("generation-1", "generation-2"):
        expected = read_checkpoint(one / run)["state_dict"]
        for name, weight in read_checkpoint(two / run)["state_dict"].items():
            torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-4, msg=f"{run} {name}")
    evaluations = [json.loads((born / "generations.json").read_text())["evaluations"] for born in (one, two)]
    for row, expected_row in zip(*evaluations, strict=True):
        assert row["test"] == pytest.approx(expected_row["test"], abs=1e-3)


def test_staged_unfreezing_ends_with_equal_weights_in_two_processes(small_fit: list[str], tmp_path: Path) -> None:
    (tmp_path / "keep_weights.py").write_text(KEEP)
    in_two(
        tmp_path, *small_fit, "--data.batch_size", "3", "--output", "run", "--allow-import", "keep_weights",
        "--trainer.callbacks+=gcpzoo.training.StagedUnfreezing", "--trainer.callbacks.unfreeze_at=1",
        "--trainer.callbacks+=keep_weights.Keep",
    )  # fmt: skip
    states = [[torch.load(tmp_path / f"epoch{e}-rank{r}.pt", weights_only=True) for r in (0, 1)] for e in (0, 1)]
    for first, second in states:
        learned = [k for k in first if not k.endswith(("running_mean", "running_var"))]  # each process has its own
        assert all(torch.equal(first[k], second[k]) for k in learned)
    (frozen, _), (trained, _) = states
    assert frozen["backbone.bn1.num_batches_tracked"] == 0
    assert torch.all(frozen["backbone.bn1.running_mean"] == 0)
    assert trained["backbone.bn1.num_batches_tracked"] == 3
    assert not torch.equal(frozen["backbone.conv1.weight"], trained["backbone.conv1.weight"])
    assert not torch.equal(frozen["classifier.weight"], trained["classifier.weight"])
    assert [row["epoch"] for row in json.loads((tmp_path / "run/metrics.json").read_text())["fit"]["history"]] == [0, 1]
    assert not (tmp_path / "runs").exists()  # the second process shares the first one's folder


def test_synchronized_batch_normalization_on_the_cpu_is_refused(data: list[str], cli: Cli) -> None:
    code, _, err = cli("fit", *data, *NETWORK, *TRAINER, *TWO, "--trainer.sync_batchnorm", "true", "--output", "o")
    assert code == 2
    assert "trainer.sync_batchnorm needs GPUs: on CPUs freeze the batch normalization by model.frozen" in err


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "SLURM_NTASKS"])
def test_processes_started_by_others_must_be_given_a_folder(
    variable: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "2")
    code, _, err = cli("fit", "--data", "Digits", *NETWORK, *TRAINER)
    assert code == 2
    assert "processes started by torchrun or SLURM must share a folder: give --output DIR" in err

"""Training in two processes on one CPU, through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

CALLBACK = """
import torch
from lightning.pytorch.callbacks import Callback

class Keep(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        torch.save(pl_module.model.state_dict(), f"epoch{trainer.current_epoch}-rank{trainer.global_rank}.pt")
"""


# A covariance as well-conditioned as its process and epoch say: 1 and 2 in the first epoch, 1 and 1 in the second.
HYBRID = """
import torch
from lightning.pytorch.callbacks import Callback

from gcpzoo.analysis import SpectrumSummary
from gcpzoo.training import hybrid_root

class Told(hybrid_root.HybridRoot):
    def on_train_batch_start(self, trainer, *arguments):
        condition = 1.0 + trainer.global_rank * (trainer.current_epoch == 0)
        hybrid_root.covariance_summary = lambda *_: SpectrumSummary(1.0, 1.0, condition, condition)
        super().on_train_batch_start(trainer, *arguments)

    def on_train_epoch_end(self, trainer, pl_module):
        torch.save(pl_module.model.head.root, f"epoch{trainer.current_epoch}-rank{trainer.global_rank}.pt")
"""


def fit_in_two_processes(arguments: list[str], folder: Path) -> None:
    arguments = [
        *arguments, "--data.batch_size", "3", "--trainer.devices", "2", "--trainer.strategy", "ddp", "--output", "run",
    ]  # fmt: skip
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(folder)])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PL_", "GCPZOO_", "LOCAL_RANK"))}
    done = subprocess.run(
        [sys.executable, "-m", "gcpzoo.cli.main", *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_staged_unfreezing_ends_with_equal_weights_in_two_processes(small_fit: list[str], tmp_path: Path) -> None:
    (tmp_path / "keep_weights.py").write_text(CALLBACK)
    arguments = [
        *small_fit, "--trainer.callbacks+=gcpzoo.training.StagedUnfreezing", "--trainer.callbacks.unfreeze_at=1",
        "--trainer.callbacks+=keep_weights.Keep", "--allow-import", "keep_weights",
    ]  # fmt: skip
    fit_in_two_processes(arguments, tmp_path)
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
    report = json.loads((tmp_path / "run/metrics.json").read_text())
    assert [row["epoch"] for row in report["fit"]["history"]] == [0, 1]
    assert not (tmp_path / "runs").exists()  # the second process shares the first one's folder


def test_the_hybrid_root_waits_until_the_condition_holds_in_both_processes(
    small_fit: list[str], tmp_path: Path
) -> None:
    (tmp_path / "told.py").write_text(HYBRID)
    callback = ["--trainer.callbacks+=told.Told", "--trainer.callbacks.condition=1.5", "--allow-import", "told"]
    fit_in_two_processes([*small_fit, *callback, "--evaluate", "false"], tmp_path)
    roots = [[torch.load(tmp_path / f"epoch{e}-rank{r}.pt") for r in (0, 1)] for e in (0, 1)]
    assert roots == [["isqrt", "isqrt"], ["svd_pade", "svd_pade"]]

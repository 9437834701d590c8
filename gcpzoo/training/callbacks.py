"""Callbacks for the Trainer: report of a run, staged unfreezing, monitor of the covariance's spectrum."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from gcpzoo.analysis import plots
from gcpzoo.errors import ZooError


def hardware() -> str:
    """The device this process computes on, e.g. ``CPU, 2 threads, torch 2.15.0``."""
    threads = torch.get_num_threads()
    cpu = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    return f"{device}, torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}"


class RunReport(Callback):
    """Write ``metrics.json`` and the plots of a run into its output folder (the trainer's ``default_root_dir``).

    ``metrics.json`` has one entry for each of ``fit``, ``validate`` and ``test`` that ran, and is written after every
    epoch, so that a stopped run leaves what it reached.
    """

    def __init__(self) -> None:
        self.report: dict[str, Any] = {}
        self.features: Tensor | None = None
        self.started = 0.0
        self.before = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"fit": self.report.get("fit")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.get("fit"):
            self.report["fit"] = state_dict["fit"]
            self.before = state_dict["fit"]["seconds"]

    def setup(self, trainer: Any, pl_module: L.LightningModule, stage: str) -> None:
        path = Path(trainer.default_root_dir) / "metrics.json"
        if not self.report and stage != "fit" and path.is_file():
            self.report = json.loads(path.read_text())
        self.started = time.perf_counter()

    def _write(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run or trainer.sanity_checking:
            return
        data = trainer.datamodule
        self.report |= {
            "model": pl_module.model.config,
            "start": pl_module.start,
            "data": data.record() if hasattr(data, "record") else {"data": type(data).__name__},
            "seed": _seed(),
            "hardware": hardware(),
            "parameters": sum(p.numel() for p in pl_module.model.parameters()),
        }
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(self.report, indent=2, default=str) + "\n")

    def on_train_epoch_end(self, trainer: Any, pl_module: L.LightningModule) -> None:
        fit = self.report.setdefault("fit", {"epochs": 0, "history": []})
        row = {"epoch": trainer.current_epoch, **_numbers(trainer.callback_metrics)}
        fit["history"] = [r for r in fit["history"] if r["epoch"] < row["epoch"]] + [row]
        fit["epochs"] = trainer.current_epoch + 1
        fit["seconds"] = round(self.before + time.perf_counter() - self.started, 1)
        self._write(trainer, pl_module)

    def on_fit_end(self, trainer: Any, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run and self.report.get("fit"):
            path = Path(trainer.default_root_dir) / "training_curves.png"
            plots.training_curves({"run": self.report["fit"]["history"]}, path)

    def on_validation_end(self, trainer: Any, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._evaluated(trainer, pl_module, "validate")

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0:
            x = batch[0][:32]
            x = x.flatten(0, 1) if x.ndim == 5 else x
            self.features = pl_module.model.forward_features(x.to(pl_module.dtype)).detach()

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._evaluated(trainer, pl_module, "test")
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        folder = Path(trainer.default_root_dir)
        names = pl_module.model.class_names or [str(i) for i in range(len(pl_module.confusion))]
        plots.confusion_matrix(pl_module.confusion, names, folder / "confusion_matrix.png")
        if self.features is not None:
            head = pl_module.model.head
            values = plots.spectrum(head, self.features)
            plots.covariance_spectrum({pl_module.model.config["head"]: values}, folder / "covariance_spectrum.png")
            text = json.dumps({kind: [round(float(v), 9) for v in w] for kind, w in values.items()})
            (folder / "spectrum.json").write_text(text + "\n")

    def _evaluated(self, trainer: Any, pl_module: Any, stage: str) -> None:
        values: dict[str, Any] = {k.split("/")[1]: v for k, v in _numbers(trainer.callback_metrics).items() if "/" in k}
        values = {k: v for k, v in values.items() if k in ("loss", "top1", "top5", "per_class")}
        if stage == "test":
            counts = pl_module.confusion
            values["images"] = int(counts.sum())
            share = counts.diag().double() / counts.sum(1).clamp_min(1)
            names = pl_module.model.class_names or range(len(share))
            values["accuracy_of_class"] = {str(n): round(float(s), 4) for n, s in zip(names, share)}
        values["seconds"] = round(time.perf_counter() - self.started, 1)
        self.report[stage] = values
        self._write(trainer, pl_module)


class StagedUnfreezing(Callback):
    """Train the classifier (and a new reduction) alone first, everything from epoch ``unfreeze_at`` on.

    The two-stage fine-tuning of B-CNN (Lin et al., ICCV 2015, section 4). Batch normalization of the frozen backbone
    keeps its statistics.

    Args:
        unfreeze_at: first epoch, counted from 0, in which the backbone learns.
        lr_factor: the learning rates of that stage in multiples of the first one's.
    """

    def __init__(self, unfreeze_at: int, lr_factor: float = 1.0) -> None:
        if unfreeze_at < 1 or not lr_factor > 0:
            raise ZooError(f"unfreeze_at must be at least 1 and lr_factor positive, got {unfreeze_at}, {lr_factor}")
        self.unfreeze_at, self.lr_factor = unfreeze_at, lr_factor

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        frozen = trainer.current_epoch < self.unfreeze_at
        pl_module.model.backbone.requires_grad_(not frozen)
        pl_module.model.backbone.train(not frozen)
        for module in pl_module.frozen:
            module.requires_grad_(False).eval()
        if trainer.current_epoch == self.unfreeze_at:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] *= self.lr_factor
                group["initial_lr"] *= self.lr_factor
            scheduler = trainer.lr_scheduler_configs[0].scheduler
            scheduler.base_lrs = [lr * self.lr_factor for lr in scheduler.base_lrs]


@torch.no_grad()
def covariance_spectrum(model: Any, images: Tensor) -> dict[str, float]:
    r"""Effective rank and condition number of the covariance that the head sees, averaged over a batch.

    The effective rank is :math:`\exp(-\sum_i p_i\log p_i)` with :math:`p_i = \lambda_i/\sum_j\lambda_j` (Roy &
    Vetterli, EUSIPCO 2007); the condition number the largest over the smallest eigenvalue above float32's precision.
    """
    x = images.flatten(0, 1) if images.ndim == 5 else images
    training = model.training
    x = x.to(next(model.parameters()).dtype)
    w = plots.spectrum(model.eval().head, model.forward_features(x))["covariance"]
    model.train(training)
    values = torch.from_numpy(w)
    kept = values[values > torch.finfo(torch.float32).eps * values.max()]
    p = kept / kept.sum()
    return {"effective_rank": float((-p * p.log()).sum().exp()), "condition": float(kept.max() / kept.min())}


class CovarianceSpectrum(Callback):
    """Log :func:`covariance_spectrum` on the first validation batch of every epoch, as ``spectrum/…``."""

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0 and not trainer.sanity_checking:
            values = covariance_spectrum(pl_module.model, batch[0])
            pl_module.log_dict({f"spectrum/{k}": v for k, v in values.items()}, batch_size=len(batch[0]))


class HybridRoot(Callback):
    """Train with the iterative root, go on with an accurate one: the hybrid protocol.

    The switch is written into the model's configuration, so that a checkpoint made after it loads with the new root.

    Args:
        root: the root from then on, e.g. ``svd_pade``; one that ``head.switch_root`` takes.
        epoch: first epoch, counted from 0, with the new root; null: the last of the schedule's milestones.
        condition: switch at the first epoch whose first batch has a covariance of at most this condition number
            (see :func:`covariance_spectrum`), instead of at a given epoch.

    Source: Song et al., "Why Approximate Matrix Square Root Outperforms Accurate SVD in Global Covariance Pooling?",
    ICCV 2021, section 5: epoch 45 of 60, at the last drop of the learning rate.
    """

    def __init__(self, root: str = "svd_pade", epoch: int | None = None, condition: float | None = None) -> None:
        if epoch is not None and condition is not None:
            raise ZooError("HybridRoot switches at an epoch or by the condition number: give one of them")
        self.root, self.epoch, self.condition = root, epoch, condition
        self.switched: int | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"switched": self.switched}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.switched = state_dict["switched"]

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        head = pl_module.model.head
        if not hasattr(head, "switch_root"):
            raise ZooError(f"HybridRoot needs a head whose root can be exchanged, such as isqrt; this is {head.name}")
        if self.epoch is None and self.condition is None:
            milestones = pl_module.hparams["milestones"]
            if not milestones:
                raise ZooError("HybridRoot needs an epoch, a condition, or a schedule with milestones")
            self.epoch = max(milestones)
        before = head.root
        head.switch_root(self.root)  # an unknown root is an error now, not at the switch
        head.switch_root(before)
        if self.switched is not None:
            self._switch(pl_module)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.switched is not None or batch_idx:
            return
        if self.condition is not None:
            due = covariance_spectrum(pl_module.model, batch[0])["condition"] <= self.condition
        else:
            due = self.epoch is not None and trainer.current_epoch >= self.epoch
        if due:
            self.switched = trainer.current_epoch
            self._switch(pl_module)

    def _switch(self, pl_module: Any) -> None:
        pl_module.model.head.switch_root(self.root)
        arguments = {**pl_module.model.config["head_args"], "root": self.root}
        pl_module.model.config["head_args"] = pl_module.hparams["head_args"] = arguments


def _numbers(metrics: Any) -> dict[str, float]:
    return {k: round(float(v), 6) for k, v in metrics.items()}


def _seed() -> int | None:
    seed = os.environ.get("PL_GLOBAL_SEED")
    return int(seed) if seed else None

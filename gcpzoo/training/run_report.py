"""The report of a run: ``metrics.json`` and the plots."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from gcpzoo import __version__
from gcpzoo.analysis import head_spectra, mean_relative
from gcpzoo.analysis.drawing import plots
from gcpzoo.errors import ZooError
from gcpzoo.hub.run_results import REPORT
from gcpzoo.models.class_labels import class_labels
from gcpzoo.paths import write_text
from gcpzoo.training.best_epoch import BestEpoch

FORMAT = 2
METRICS = ("loss", "top1", "top5", "per_class", "f1", "ece", "brier")


def hardware() -> str:
    """Describe the device this process computes on, e.g. ``CPU, 2 threads, torch 2.15.0, Python 3.11.7``.

    >>> "torch" in hardware()
    True
    """
    threads = torch.get_num_threads()
    cpu = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    return f"{device}, torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}"


class RunReport(Callback):
    """Write ``metrics.json`` and the plots of a run into its folder, the trainer's ``default_root_dir``.

    ``metrics.json`` has an entry for each of ``fit``, ``validate`` and ``test`` that ran; ``docs/metrics.schema.json``
    defines it. It is written after every epoch, so that a stopped run leaves what it reached.

    >>> RunReport().report
    {}
    """

    def __init__(self) -> None:
        self.report: dict[str, Any] = {}
        self.features: Tensor | None = None
        self.drawn = False
        self.started = 0.0
        self.seconds_before = 0.0
        self.row: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"fit": self.report.get("fit"), "row": self.row, "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.get("fit"):
            self.report["fit"] = state_dict["fit"]
            self.seconds_before = state_dict["fit"]["seconds"]
        self.row = state_dict.get("row", {})
        self.seconds_before = state_dict.get("seconds", self.seconds_before)

    def _seconds(self) -> float:
        return round(self.seconds_before + time.perf_counter() - self.started, 1)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        path = Path(trainer.default_root_dir) / REPORT
        if not self.report and stage != "fit" and path.is_file():
            self.report = _read(path, pl_module.model.config)
        self.started = time.perf_counter()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        logged = numbers(trainer.callback_metrics)
        self.row = {"epoch": trainer.current_epoch, **{k: v for k, v in logged.items() if k.startswith("lr-")}}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        logged = numbers(trainer.callback_metrics)  # the last values of each; those of the validation may be old
        self.row |= {k: v for k, v in logged.items() if not k.startswith(("val/", "spectrum/"))}
        fit = self.report.setdefault("fit", {"epochs": 0, "history": []})
        self.row["seconds"] = self._seconds()
        former = [row for row in fit["history"] if row["epoch"] < self.row["epoch"]]
        fit["history"] = [*former, dict(sorted(self.row.items()))]
        fit["epochs"] = trainer.current_epoch + 1
        fit["seconds"] = self.row["seconds"]
        fit["loss"] = training_loss(pl_module)
        self._write(trainer, pl_module)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self._draw_curves(trainer, pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.state.fn == "validate":
            self._add_evaluation(trainer, pl_module, "validate")
        elif not trainer.sanity_checking:
            logged = numbers(trainer.callback_metrics)
            self.row |= {k: v for k, v in logged.items() if k.startswith(("val/", "spectrum/"))}

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0:
            x = batch[0][:32]
            x = x.flatten(0, 1) if x.ndim == 5 else x
            self.features = pl_module.model.forward_features(x.to(pl_module.dtype)).detach()

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._add_evaluation(trainer, pl_module, "test")
        if not writes(trainer):
            return
        folder, model = Path(trainer.default_root_dir), pl_module.model
        if not self.drawn and (folder / "checkpoints").is_dir():  # lacking where it was stopped after its last epoch
            self._draw_curves(trainer, pl_module)
        plots.confusion_matrix(pl_module.confusion, class_labels(model)[1], folder / "confusion_matrix.png")
        if self.features is not None:
            spectra = {kind: mean_relative(w) for kind, w in head_spectra(model.head, self.features).items()}
            plots.covariance_spectrum({model.config["head"]: spectra}, folder / "covariance_spectrum.png")
            rounded = {kind: [round(v, 9) for v in w] for kind, w in spectra.items()}
            _write_json(folder / "spectrum.json", rounded)

    def _draw_curves(self, trainer: Any, pl_module: Any) -> None:
        if writes(trainer) and self.report.get("fit"):
            path = Path(trainer.default_root_dir) / "training_curves.png"
            fit, config = self.report["fit"], pl_module.model.config
            name = f"{config['backbone']}_{config['head']}"
            plots.training_curves({name: fit["history"]}, path, fit.get("loss", training_loss(pl_module)))
            self.drawn = True

    def _add_evaluation(self, trainer: Any, pl_module: Any, stage: str) -> None:
        prefix = {"validate": "val", "test": "test"}[stage]
        logged = numbers(trainer.callback_metrics)
        values: dict[str, Any] = {name: logged.get(f"{prefix}/{name}") for name in METRICS}
        if stage == "test":
            counts = pl_module.confusion
            values["images"] = int(counts.sum())
            found = zip(class_labels(pl_module.model)[0], counts.diag().tolist(), counts.sum(1).tolist())
            values["accuracy_of_class"] = {name: round(right / of, 4) if of else None for name, right, of in found}
        values["seconds"] = round(time.perf_counter() - self.started, 1)
        self.report[stage] = values
        self._write(trainer, pl_module)

    def _write(self, trainer: Any, pl_module: Any) -> None:
        if not writes(trainer) or trainer.sanity_checking:
            return
        data = trainer.datamodule
        seed = os.environ.get("PL_GLOBAL_SEED")
        self.report |= {
            "format": FORMAT,
            "gcpzoo": __version__,
            "model": pl_module.model.config,
            "start": pl_module.start,
            "data": data.record() if hasattr(data, "record") else {"data": type(data).__name__},
            "seed": int(seed) if seed else None,
            "hardware": hardware(),
            "parameters": sum(p.numel() for p in pl_module.model.parameters()),
        }
        best = next((c.record() for c in trainer.callbacks if isinstance(c, BestEpoch)), None)
        if "fit" in self.report and (best or trainer.state.fn == "fit" or "checkpoint" not in self.report):
            self.report["checkpoint"] = best or {"kept": "final", "epoch": self.report["fit"]["epochs"]}
        if teacher := pl_module.distillation.record():
            self.report["teacher"] = teacher
        _write_json(Path(trainer.default_root_dir) / REPORT, self.report, indent=2)


def training_loss(task: Any) -> str:
    """Say what a training minimizes, which the validation's plain cross-entropy compares with only if it is the same.

    >>> from types import SimpleNamespace
    >>> training_loss(SimpleNamespace(label_smoothing=0.1, mixup_alpha=0.2))
    'cross-entropy with label smoothing 0.1 and MixUp'
    """
    parts = [f"label smoothing {task.label_smoothing:g}"] if getattr(task, "label_smoothing", 0) else []
    parts += [name for key, name in (("mixup_alpha", "MixUp"), ("cutmix_alpha", "CutMix")) if getattr(task, key, 0)]
    distillation = getattr(task, "distillation", None)
    parts += ["a teacher's answers"] if distillation is not None and distillation.record() else []
    listed = " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
    loss = getattr(task, "loss", None)
    own = loss is not None and type(loss) is not torch.nn.CrossEntropyLoss  # of a subclass of the task
    name = type(loss).__name__ if own else plots.PLAIN_LOSS
    return f"{name} with {listed}" if parts else name


def _write_json(path: Path, content: Any, indent: int | None = None) -> None:
    write_text(path, json.dumps(content, indent=indent, default=str, allow_nan=False) + "\n")


def _read(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Read the report that an evaluation adds to; one of another model is refused."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ZooError(f"{path} is not JSON ({error}): remove it, or give another --output") from None
    if not isinstance(report, dict) or report.get("model") != json.loads(json.dumps(config, default=str)):
        raise ZooError(f"{path} is the report of another model: give another --output")
    return report


def writes(trainer: Any) -> bool:
    """Say whether this process writes the files of a run.

    >>> from types import SimpleNamespace
    >>> writes(SimpleNamespace(is_global_zero=True, fast_dev_run=0))
    True
    """
    return bool(trainer.is_global_zero and not trainer.fast_dev_run)


def numbers(metrics: Any) -> dict[str, float | None]:
    """Return logged values as JSON has them: six decimals, and null where a value is not finite.

    >>> numbers({"loss": torch.tensor(torch.nan), "top1": torch.tensor(0.5)})
    {'loss': None, 'top1': 0.5}
    """
    return {k: round(float(v), 6) if math.isfinite(v) else None for k, v in metrics.items()}

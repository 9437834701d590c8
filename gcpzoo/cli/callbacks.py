"""The callbacks of a run, and the options of those that keep its best epoch."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, LearningRateMonitor, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.tuner import Tuner

from gcpzoo.errors import ZooError
from gcpzoo.training import BestEpoch, RunReport, TestPredictions
from gcpzoo.training.best_epoch import MONITOR

STEPS = 100
"""Of the learning-rate finder, each at a higher rate."""


def add_best_options(parser: LightningArgumentParser) -> None:
    """Add ``--best`` and what belongs to it."""
    parser.add_argument(
        "--best", type=bool, nargs="?", const=True, default=False,
        help="keep and test the epoch that is best on the validation images, and stop where none is better (fit)",
    )  # fmt: skip
    parser.add_argument("--best_by", type=str, default=MONITOR, help="the metric that --best goes by")
    parser.add_argument(
        "--lr_find", type=bool, nargs="?", const=True, default=False,
        help="try rising learning rates for 100 steps, suggest one, and train nothing (fit)",
    )  # fmt: skip
    parser.add_argument("--patience", type=int, default=5, help="epochs without a better one after which --best stops")


def run_callbacks(config: Any, command: str, keeps_log: bool) -> list[Callback]:
    """Collect the callbacks of a command: the user's, then ours in the order in which they must run."""
    trainer = config.trainer
    callbacks = listed(trainer.get("callbacks"))
    if command == "fit":
        if keeps_log:
            callbacks.append(LearningRateMonitor())
        if trainer.get("enable_checkpointing") is not False:
            callbacks.append(config.checkpoint)
        if config.best:
            callbacks += _best(config)
    if trainer.get("enable_progress_bar") is not False:
        callbacks.append(EpochBar(leave=True))
    return [*callbacks, RunReport(), TestPredictions()]


def _best(config: Any) -> list[Callback]:
    if config.trainer.get("enable_checkpointing") is False:
        raise ZooError("--best keeps a checkpoint: leave out trainer.enable_checkpointing=false")
    if config.patience < 1:
        raise ZooError(f"patience must be at least 1, got {config.patience}")
    return [EarlyStopping(config.best_by, patience=config.patience, mode="max"), BestEpoch(config.best_by)]


def suggest_rate(trainer: Any, model: Any, data: Any) -> float:
    """Try learning rates from 1e-8 to 1 by Lightning's finder, all parts of the network at the same one, and pick one.

    Raises:
        ZooError: if the losses of too few steps are known to pick one.
    """
    kept = (Checkpoint, RichProgressBar, RunReport, EarlyStopping)  # a search leaves no run behind
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, kept)]
    found = Tuner(trainer).lr_find(model, datamodule=data, num_training=STEPS, update_attr=False)
    rate = found.suggestion() if found is not None else None
    if rate is None:
        raise ZooError(f"too few steps to suggest a learning rate: the finder needs {STEPS}, so add images or epochs")
    return float(rate)


def listed(given: Any) -> list[Any]:
    """Write an option that takes one value or several as a list."""
    return list(given) if isinstance(given, list | tuple) else [given] if given else []


class EpochBar(RichProgressBar):
    """Lightning's bar, whose epochs count from 1 as those of the summary do."""

    def _get_train_description(self, current_epoch: int) -> str:  # Lightning has no public place for it
        most = self.trainer.max_epochs
        text = f"Epoch {current_epoch + 1}" + (f"/{most}" if most is not None and most > 0 else "")
        return text.ljust(len(self.validation_description))

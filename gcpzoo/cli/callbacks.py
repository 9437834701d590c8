"""The callbacks of a run, and the options of those that keep its best epoch."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser

from gcpzoo.errors import ZooError
from gcpzoo.training import BestEpoch, RunReport, TestPredictions
from gcpzoo.training.best_epoch import MONITOR


def add_best_options(parser: LightningArgumentParser) -> None:
    """Add ``--best`` and what belongs to it."""
    parser.add_argument(
        "--best", type=bool, nargs="?", const=True, default=False,
        help="keep and test the epoch that is best on the validation images, and stop where none is better (fit)",
    )  # fmt: skip
    parser.add_argument("--best_by", type=str, default=MONITOR, help="the metric that --best goes by")
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


def listed(given: Any) -> list[Any]:
    """Write an option that takes one value or several as a list."""
    return list(given) if isinstance(given, list | tuple) else [given] if given else []


class EpochBar(RichProgressBar):
    """Lightning's bar, whose epochs count from 1 as those of the summary do."""

    def _get_train_description(self, current_epoch: int) -> str:  # Lightning has no public place for it
        most = self.trainer.max_epochs
        text = f"Epoch {current_epoch + 1}" + (f"/{most}" if most is not None and most > 0 else "")
        return text.ljust(len(self.validation_description))

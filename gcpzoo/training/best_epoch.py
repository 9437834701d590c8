"""Keep the epoch that is best on the validation images, and evaluate it in place of the final one."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Checkpoint

from gcpzoo.errors import ZooError
from gcpzoo.hub.run_checkpoint import read_run_checkpoint
from gcpzoo.models.weights import open_file
from gcpzoo.paths import replacing
from gcpzoo.training.checkpoints import BEST, FOLDER, LAST

MONITOR = "val/top1"


class BestEpoch(Checkpoint):
    """Keep ``checkpoints/best.ckpt``, the epoch with the best validation metric, and test that one after the training.

    Of equal epochs the first is kept. ``best.ckpt`` is a copy of the epoch's ``last.ckpt``, which knows which epoch is
    the best: a training that was stopped between the two makes the copy when it goes on. Lightning's
    ``ModelCheckpoint`` forgets its best value where a run's folder has moved.

    Args:
        monitor: a logged metric that is better the larger it is, such as ``val/top1``, ``val/per_class``, ``val/f1``.

    >>> BestEpoch().record()
    {'kept': 'best', 'epoch': None, 'metric': 'val/top1', 'value': None}
    """

    def __init__(self, monitor: str = MONITOR) -> None:
        self.monitor = monitor
        self.epoch: int | None = None
        self.value = -math.inf

    def record(self) -> dict[str, Any]:
        """Say which epoch is kept and why, as ``metrics.json`` does; epochs count from 1.

        >>> best = BestEpoch("val/f1")
        >>> best.epoch, best.value = 6, 0.5
        >>> best.record()
        {'kept': 'best', 'epoch': 7, 'metric': 'val/f1', 'value': 0.5}
        """
        if self.epoch is None:
            return {"kept": "best", "epoch": None, "metric": self.monitor, "value": None}
        return {"kept": "best", "epoch": self.epoch + 1, "metric": self.monitor, "value": round(self.value, 6)}

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "value": self.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch, self.value = state_dict["epoch"], state_dict["value"]

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse a training without an honest validation after each epoch."""
        data = trainer.datamodule
        if getattr(data, "val_on_test", False):
            raise ZooError("--best needs validation images that are not the test images: leave out data.val_on_test")
        if trainer.val_check_interval not in (None, 1, 1.0):
            raise ZooError("--best needs one validation at the end of an epoch: leave out trainer.val_check_interval")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.num_val_batches or not sum(trainer.num_val_batches):
            raise ZooError("--best needs validation images: set data.val_fraction, or add a val folder")
        if self.epoch is None:
            return
        best = best_checkpoint(trainer)
        if trainer.is_global_zero and _epoch(best) != self.epoch and _epoch(best.with_name(LAST)) == self.epoch:
            self._copy(trainer)  # the training was stopped before it did
        trainer.strategy.barrier()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(k for k in trainer.callback_metrics if k.startswith("val/"))
            raise ZooError(f"best_by must be one of {known}, got {self.monitor!r}")
        value = float(trainer.callback_metrics[self.monitor])
        if value > self.value:
            self.epoch, self.value = trainer.current_epoch, value

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Copy the checkpoint that was just written, if this epoch is the best."""
        if trainer.current_epoch == self.epoch and not trainer.fast_dev_run:
            if trainer.is_global_zero:
                self._copy(trainer)
            trainer.strategy.barrier()

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Take the weights of the best epoch."""
        if self.epoch is None or trainer.fast_dev_run:
            return
        path = best_checkpoint(trainer)
        epoch = open_file(path)["epoch"]
        if epoch != self.epoch:
            raise ZooError(
                f"{path} is of epoch {epoch + 1}, but the best of this run is epoch {self.epoch + 1}: it was trained "
                "again from an older checkpoint; give another --output to start anew"
            )
        pl_module.model.load_state_dict(read_run_checkpoint(path).state_dict)

    @staticmethod
    def _copy(trainer: Any) -> None:
        path = best_checkpoint(trainer)
        with replacing(path) as temporary:
            shutil.copyfile(path.with_name(LAST), temporary)


def _epoch(path: Path) -> int | None:
    """Read the epoch of a checkpoint; nothing where there is none."""
    return int(open_file(path)["epoch"]) if path.is_file() else None


def best_checkpoint(trainer: Any) -> Path:
    """Give the path of a run's best epoch.

    >>> from types import SimpleNamespace
    >>> best_checkpoint(SimpleNamespace(default_root_dir="runs/mine"))
    PosixPath('runs/mine/checkpoints/best.ckpt')
    """
    return Path(trainer.default_root_dir) / FOLDER / BEST

"""The checkpoints of a run: when they are written, and how: whole, with the one before kept."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.paths import replacing

FOLDER, LAST, FORMER, BEST = "checkpoints", "last.ckpt", "former.ckpt", "best.ckpt"


class WholeCheckpointIO(TorchCheckpointIO):
    """Write checkpoints whole or not at all, next to where they belong, and keep the former ``last.ckpt``.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "last.ckpt"
    >>> for epoch in (1, 2):
    ...     WholeCheckpointIO().save_checkpoint({"epoch": epoch}, path)
    >>> torch.load(path), torch.load(path.with_name("former.ckpt"))
    ({'epoch': 2}, {'epoch': 1})
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            ZooError: if it cannot be written, e.g. because the disk is full.

        >>> WholeCheckpointIO().save_checkpoint({}, "/proc/last.ckpt")
        Traceback (most recent call last):
        gcpzoo.errors.ZooError: /proc/last.ckpt cannot be written: ...
        """
        former = Path(path).with_name(FORMER) if Path(path).name == LAST else None
        with _ctrl_c_waits(), replacing(path, former) as temporary, temporary.open("wb") as file:
            _save(checkpoint, file)


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Let Ctrl-C take effect at the end: torch's writer, which calls back from C++, can swallow it on the way."""
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        yield
        return
    came: list[int] = []
    former = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
        if came:
            signal.raise_signal(signal.SIGINT)


def _save(checkpoint: Mapping[str, Any], file: Any) -> None:
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:  # torch's writer hides what the file said
        cause = error.__cause__ or error.__context__
        raise OSError(str(error).splitlines()[0]) from error if not isinstance(cause, OSError) else cause


def is_whole(path: Path) -> bool:
    """Say whether a checkpoint file is complete: every part of it has the checksum that it was written with.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "last.ckpt"
    >>> torch.save({"weights": torch.zeros(3)}, path)
    >>> is_whole(path), path.write_bytes(path.read_bytes()[:-100]) > 0, is_whole(path)
    (True, True, False)
    """
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, RuntimeError):
        return False


def check_finite(checkpoint: Mapping[str, Any]) -> None:
    """Refuse to keep a checkpoint with a tensor that is not finite.

    Raises:
        ZooError: if there is one; the message names it.

    >>> check_finite({"state_dict": {"weight": torch.tensor([1.0, torch.nan])}})
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: state_dict.weight is not finite, so no checkpoint is written and the last one stays; ...
    """
    parts = [k for k in ("state_dict", "current_model_state", "optimizer_states") if k in checkpoint]
    for part in parts:
        for name, tensor in _tensors(checkpoint[part], part):
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ZooError(
                    f"{name} is not finite, so no checkpoint is written and the last one stays; lower the learning "
                    "rate, or train with a wider trainer.precision"
                )


def _tensors(value: Any, name: str) -> list[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(name, value)]
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    return [found for key, inner in items for found in _tensors(inner, f"{name}.{key}")]


class RunCheckpoints(Checkpoint):
    """Write ``checkpoints/last.ckpt`` into the run's folder after every epoch, and before SIGTERM ends the training.

    A checkpoint holds all that decides how the training goes on. It is written after a whole optimizer step, and never
    between the last step before a validation and its end: a validation that has begun is finished first.

    Args:
        every_n_train_steps: write one after this many optimizer steps too; 0: not.
        every_minutes: write one after this time too; 0: not.

    Raises:
        ZooError: if a value is negative.

    >>> RunCheckpoints(every_minutes=-1)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: every_minutes must be at least 0, got -1
    """

    def __init__(self, every_n_train_steps: int = 0, every_minutes: float = 0.0) -> None:
        for name, value in (("every_n_train_steps", every_n_train_steps), ("every_minutes", every_minutes)):
            if not value >= 0:
                raise ZooError(f"{name} must be at least 0, got {value}")
        self.every_n_train_steps, self.every_minutes = every_n_train_steps, every_minutes
        self.terminated = False
        self.due = False
        self.written_step, self.written_time = -1, time.monotonic()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Note SIGTERM from now on, to act on it after a step; Lightning's own handler would not save."""
        self.written_step, self.written_time = trainer.global_step, time.monotonic()
        _on_sigterm(lambda *_: setattr(self, "terminated", True))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        terminated = self._agreed(trainer, self.terminated)
        steps = trainer.global_step - self.written_step
        minutes = (time.monotonic() - self.written_time) / 60
        self.due |= bool(self.every_n_train_steps) and steps >= self.every_n_train_steps
        if self.every_minutes:
            self.due |= self._agreed(trainer, minutes >= self.every_minutes)
        if (self.due or terminated) and self._between_steps(trainer, batch_idx):
            self._write(trainer)
            if terminated:
                raise SIGTERMException

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._write(trainer)
        if self._agreed(trainer, self.terminated):
            raise SIGTERMException

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self._agreed(trainer, self.terminated):
            raise SIGTERMException

    def _write(self, trainer: Any) -> None:
        if trainer.fast_dev_run:
            return
        trainer.save_checkpoint(Path(trainer.default_root_dir) / FOLDER / LAST, weights_only=False)
        self.due, self.written_step, self.written_time = False, trainer.global_step, time.monotonic()

    @staticmethod
    def _agreed(trainer: Any, wish: bool) -> bool:
        """Say whether any process wishes it, so that all of them do the same at the same step."""
        if trainer.world_size == 1:
            return wish
        agreed: bool = trainer.strategy.reduce_boolean_decision(wish, all=False)
        return agreed

    @staticmethod
    def _between_steps(trainer: Any, batch_idx: int) -> bool:
        """Say whether a training could go on from here: no gradients are half gathered, no validation follows."""
        done, last = batch_idx + 1, trainer.num_training_batches
        interval = trainer.val_check_batch or last
        counted = done if trainer.check_val_every_n_epoch else trainer.fit_loop.total_batch_idx + 1
        validates = counted % interval == 0
        return done < last and done % trainer.accumulate_grad_batches == 0 and not validates


def _on_sigterm(act: Any) -> None:
    with contextlib.suppress(ValueError):  # not in the main thread, where signals do not arrive
        signal.signal(signal.SIGTERM, act)

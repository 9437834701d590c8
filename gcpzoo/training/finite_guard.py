"""What a training does about losses and gradients that are not finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from gcpzoo.errors import ZooError, unknown_name

POLICIES = ("stop", "skip")
READ_EVERY = 50
"""Batches after which a GPU's findings are read; reading makes the CPU wait for it."""


class FiniteGuard(Callback):
    """Stop a training at the first loss or gradient that is not finite, or skip that optimizer step.

    To stop, the findings stay on the device; they are read every batch on a CPU, every 50 batches elsewhere, and the
    first bad batch is known either way. To skip, they are read before every step: its gradients are dropped, and the
    buffers, such as the statistics of batch normalization, become what they were. Scaled float16 gradients overflow as
    a rule: the scaler skips those steps by itself.

    :class:`~gcpzoo.training.ClassificationTask` brings this callback, by its argument ``on_nonfinite``.

    Args:
        policy: ``stop`` or ``skip``.

    Raises:
        ZooError: in the training, naming epoch, batch and files.

    >>> FiniteGuard("ignore")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown on_nonfinite 'ignore'; available: skip, stop
    """

    def __init__(self, policy: str = "stop") -> None:
        if policy not in POLICIES:
            raise unknown_name("on_nonfinite", str(policy), POLICIES)
        self.policy = policy
        self.batch: Any = None
        self.batch_idx = 0
        self.first_bad: Tensor | None = None
        self.buffers: list[Tensor] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batch, self.batch_idx = batch, batch_idx
        if self.policy == "skip" and batch_idx % trainer.accumulate_grad_batches == 0:
            self.buffers = [buffer.detach().clone() for buffer in pl_module.model.buffers()]

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        self._note(loss)
        if self.policy == "stop" and (loss.device.type == "cpu" or self.batch_idx % READ_EVERY == 0):
            self._stop(trainer)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.precision != "16-mixed":
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self._note(torch.nn.utils.get_total_norm(gradients))
        if self.policy == "stop":
            if pl_module.device.type == "cpu":
                self._stop(trainer)
        elif (bad := self._read()) is not None:
            rank_zero_warn(f"optimizer step skipped: {self._explain(trainer, bad)}")
            for parameter in pl_module.parameters():
                parameter.grad = None
            for buffer, kept in zip(pl_module.model.buffers(), self.buffers):
                buffer.copy_(kept)

    def on_train_batch_end(self, *_: Any) -> None:
        self.batch = None

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._stop(trainer)

    def _note(self, value: Tensor) -> None:
        """Note whether this batch is the first bad one, without waiting for the device."""
        if self.first_bad is None:
            self.first_bad = torch.full((), -1, dtype=torch.int64, device=value.device)
        bad = ~value.detach().isfinite()
        self.first_bad = torch.where((self.first_bad < 0) & bad, self.batch_idx, self.first_bad)

    def _read(self) -> int | None:
        """Return the index of the first bad batch since the last reading."""
        first, self.first_bad = (-1 if self.first_bad is None else int(self.first_bad)), None
        return first if first >= 0 else None

    def _stop(self, trainer: Any) -> None:
        if (bad := self._read()) is not None:
            raise ZooError(f"{self._explain(trainer, bad)}, or set model.on_nonfinite to skip")

    def _explain(self, trainer: Any, bad: int) -> str:
        """Say what is not finite, in which files: the pixels themselves, or what the network made of them."""
        data: Any = getattr(trainer, "datamodule", None)
        files = data.training_files(trainer.current_epoch, bad) if hasattr(data, "training_files") else []
        where = f"epoch {trainer.current_epoch}, batch {bad}"
        images = self.batch[0] if bad == self.batch_idx and isinstance(self.batch, list | tuple) else None
        if isinstance(images, Tensor) and not images.isfinite().all():
            wrong = (~images.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
            named = _names([files[i] for i in wrong]) if files else f"images {_names(wrong)} of the batch"
            return f"pixels are not finite in {where}: {named}; mend or remove these images"
        named = f" ({_names(files)})" if files else ""
        return f"the loss or a gradient is not finite in {where}{named}; lower the learning rate"


def _names(items: Sequence[Any], most: int = 10) -> str:
    text = ", ".join(map(str, items[:most]))
    return f"{text} and {len(items) - most} more" if len(items) > most else text

"""Fine-tuning in two stages: the classifier first, then the whole network."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback
from torch import nn

from gcpzoo.errors import ZooError
from gcpzoo.models.surgery import freeze
from gcpzoo.training.schedules import scale_rates


class StagedUnfreezing(Callback):
    """Train the head and the classifier alone first, and the backbone too from epoch ``unfreeze_at`` on.

    The batch normalization of a frozen backbone keeps its statistics. One process saves the backbone's backward pass
    while it is frozen. Several processes keep it, because every gradient has to reach their common reduction, and drop
    the backbone's gradients before the step: the result is the same.

    Args:
        unfreeze_at: first epoch, counted from 0, in which the backbone learns.
        lr_factor: learning rates from then on, in multiples of those before.
        accumulate: batches whose gradients are averaged for one step while the backbone is frozen. With 4, batches of
            10 images learn as batches of 40, and as batches of 10 from ``unfreeze_at`` on.

    Source: Lin et al., ICCV 2015, section 4, the two-stage fine-tuning of B-CNN.

    >>> StagedUnfreezing(unfreeze_at=0)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unfreeze_at must be at least 1, got 0
    """

    def __init__(self, unfreeze_at: int, lr_factor: float = 1.0, accumulate: int = 1) -> None:
        if unfreeze_at < 1:
            raise ZooError(f"unfreeze_at must be at least 1, got {unfreeze_at}")
        if not lr_factor > 0:
            raise ZooError(f"lr_factor must be positive, got {lr_factor}")
        if accumulate < 1:
            raise ZooError(f"accumulate must be at least 1, got {accumulate}")
        self.unfreeze_at, self.lr_factor, self.accumulate = unfreeze_at, lr_factor, accumulate

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if self.accumulate > 1 and trainer.accumulate_grad_batches > 1:
            raise ZooError(
                "trainer.accumulate_grad_batches must be 1 beside StagedUnfreezing's accumulate, got "
                f"{trainer.accumulate_grad_batches}"
            )
        if self.accumulate > 1 and pl_module.schedule_config.interval == "step":
            raise ZooError("StagedUnfreezing's accumulate changes the number of steps: set schedule.interval to epoch")
        if 0 < (trainer.max_epochs or -1) <= self.unfreeze_at and not trainer.fast_dev_run:
            raise ZooError(f"unfreeze_at must be less than the {trainer.max_epochs} epochs, got {self.unfreeze_at}")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Freeze here too: a training that goes on in the middle of an epoch does not start that epoch again."""
        self._freeze(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._freeze(trainer, pl_module)
        if trainer.current_epoch == self.unfreeze_at:
            scale_rates(trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler, self.lr_factor)

    def _freeze(self, trainer: Any, pl_module: Any) -> None:
        frozen = trainer.current_epoch < self.unfreeze_at
        if self.accumulate > 1:
            trainer.accumulate_grad_batches = self.accumulate if frozen else 1
        backbone = pl_module.model.backbone
        if trainer.world_size == 1:
            backbone.requires_grad_(not frozen)
        backbone.train(not frozen)
        freeze(pl_module.frozen)
        nn.ModuleList(pl_module.frozen).eval()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.world_size > 1 and trainer.current_epoch < self.unfreeze_at:
            for parameter in pl_module.model.backbone.parameters():
                parameter.grad = None

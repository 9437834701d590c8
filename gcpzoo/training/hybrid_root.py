"""The hybrid protocol: an iterative root first, an accurate one to the end."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback

from gcpzoo.analysis import covariance_summary
from gcpzoo.errors import ZooError


class HybridRoot(Callback):
    """Switch the head to another root during training.

    The switch is written into the model's configuration, so that a checkpoint made after it loads with the new root.

    Args:
        root: the root from then on, e.g. ``svd_pade``; one that ``head.switch_root`` takes.
        epoch: first epoch, counted from 0, with the new root; null: the last of the schedule's milestones.
        condition: instead of an epoch, the condition number of the covariance's non-zero spectrum
            (:class:`gcpzoo.analysis.SpectrumSummary`): switch at the first epoch whose first batch has at most this.
            Reduction, covariance and eigenvalues are computed in float64. With several processes the first batch of
            each must have at most this, so that all of them switch at once.

    Source: Song et al., "Why Approximate Matrix Square Root Outperforms Accurate SVD in Global Covariance Pooling?",
    ICCV 2021, section 5: epoch 45 of 60, at the last drop of the learning rate.

    >>> HybridRoot("svd_pade", epoch=45).epoch
    45
    """

    def __init__(self, root: str = "svd_pade", epoch: int | None = None, condition: float | None = None) -> None:
        if epoch is not None and condition is not None:
            raise ZooError(f"give epoch or condition, not both; got epoch={epoch} and condition={condition}")
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
        chosen = self.epoch
        if self.epoch is None and self.condition is None:
            milestones = pl_module.schedule_config.milestones
            if not milestones:
                raise ZooError("HybridRoot needs an epoch, a condition, or a schedule with milestones")
            self.epoch = max(milestones)
        before = head.root
        head.switch_root(self.root)  # an unknown root fails now, not at the switch
        head.switch_root(before)
        if chosen is not None and 0 < (trainer.max_epochs or -1) <= chosen and not trainer.fast_dev_run:
            raise ZooError(f"epoch must be less than the {trainer.max_epochs} epochs, got {chosen}")
        if self.switched is not None:
            self._switch(pl_module)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.switched is not None or batch_idx:
            return
        if self.condition is not None:
            due = covariance_summary(pl_module.model, batch[0]).condition_nonzero <= self.condition
            due = trainer.strategy.reduce_boolean_decision(due, all=True)
        else:
            due = self.epoch is not None and trainer.current_epoch >= self.epoch
        if due:
            self.switched = trainer.current_epoch
            self._switch(pl_module)

    def _switch(self, pl_module: Any) -> None:
        pl_module.model.head.switch_root(self.root)
        arguments = {**pl_module.model.config["head_args"], "root": self.root}
        pl_module.model.config["head_args"] = pl_module.hparams["head_args"] = arguments

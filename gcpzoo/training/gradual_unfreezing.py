"""Fine-tuning from the end to the start: parts of the backbone begin to learn one after the other."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from gcpzoo.errors import ZooError
from gcpzoo.models.surgery import WHOLE, find_modules, freeze


class GradualUnfreezing(Callback):
    """Freeze modules of the backbone until an epoch of their own.

    A frozen module runs as in evaluation, without dropout and with fixed statistics. Of two paths the inner one counts:
    ``{"backbone": 3, "layer4": 1}`` trains the head alone first, ``layer4`` too from epoch 1 on, and all from epoch 3
    on. ``model.frozen`` names what never learns. One process only: several would wait for gradients that do not come.

    Args:
        until: first epoch, counted from 0, in which a module learns, by its path in the backbone or the beginning of
            several paths; ``backbone`` is the whole.

    Raises:
        ZooError: if an epoch is not at least 1.

    Source: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.

    >>> GradualUnfreezing({"layer4": 1, "layer3": 2, "layer1": 0})
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: until must give each module an epoch of at least 1, got 0 for 'layer1'
    """

    def __init__(self, until: dict[str, int]) -> None:
        for path, epoch in until.items():
            if epoch < 1:
                raise ZooError(f"until must give each module an epoch of at least 1, got {epoch} for {path!r}")
        self.until = dict(until)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse what would never learn or never be reduced over processes, and paths that name nothing."""
        find_modules(pl_module.model.backbone, list(self.until))
        if trainer.world_size > 1:
            raise ZooError("GradualUnfreezing needs one process: set trainer.devices to 1, or take StagedUnfreezing")
        most = trainer.max_epochs or -1
        late = [path for path, epoch in self.until.items() if 0 < most <= epoch]
        if late and not trainer.fast_dev_run:
            raise ZooError(f"until must be less than the {most} epochs, got {self.until[late[0]]} for {late[0]!r}")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Freeze here too: a training that goes on in the middle of an epoch does not start that epoch again."""
        self._freeze(trainer.current_epoch, pl_module)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._freeze(trainer.current_epoch, pl_module)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Give parameters that begin to learn a momentum of zero: SGD's fused step takes all of a group or none."""
        if not isinstance(optimizer, torch.optim.SGD):
            return
        for group in optimizer.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                state = optimizer.state[parameter]
                if parameter.grad is not None and state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)

    def _freeze(self, epoch: int, pl_module: Any) -> None:
        backbone = pl_module.model.backbone
        for path in sorted(self.until, key=lambda path: (path != WHOLE, path.count("."))):  # inner ones last
            for module in find_modules(backbone, [path]):
                module.requires_grad_(epoch >= self.until[path])
                module.train(epoch >= self.until[path])
        freeze(pl_module.frozen)
        nn.ModuleList(pl_module.frozen).eval()

"""Schedules: the course of the learning rate over the epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch.optim import SGD, Optimizer, lr_scheduler

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.training.checks import check_ranges

SCHEDULES = ("constant", "step", "cosine", "polynomial", "logarithmic", "piecewise")


@dataclass(frozen=True)
class ScheduleConfig:
    r"""Factor of the learning rate in epoch :math:`e = 0, 1, \dots` of E, after a linear warm-up.

    ==============  =====================================================================
    ``constant``    1
    ``step``        :math:`\gamma^{\#\{m \in \text{milestones} : m \le e\}}`
    ``cosine``      :math:`\tfrac12(1 + \cos(\pi e/E))`
    ``polynomial``  :math:`(1 - e/\text{horizon})^{\text{power}}`, zero from the horizon on
    ``logarithmic`` :math:`\text{final\_factor}^{e/(E-1)}`: equal ratios from 1 to ``final_factor``
    ``piecewise``   straight lines between ``points``, constant before the first and after the last
    ==============  =====================================================================

    Args:
        name: one of the table.
        warmup_epochs: epochs of linear rise, which shorten the rest; milestones count from the start.
        milestones: epochs at which ``step`` multiplies the rate by gamma.
        gamma: factor of ``step``.
        power: exponent of ``polynomial``.
        horizon: epoch at which ``polynomial`` reaches zero; null: the last. LRadju of GCP_Optimization is
            ``power=2, horizon=49`` at 50 epochs, LRfast ``power=11, horizon=52`` at 30.
        final_factor: factor of the last epoch of ``logarithmic``.
        interval: change the rate every ``epoch`` or every ``step``.
        points: pairs ``[epoch, factor]`` of ``piecewise``, in the order of the epochs.

    Raises:
        ZooError: if a value is out of range or the schedule does not exist.

    >>> ScheduleConfig("step", milestones=[30, 45]).to_dict()["milestones"]
    [30, 45]
    """

    name: Literal["constant", "step", "cosine", "polynomial", "logarithmic", "piecewise"] = "cosine"
    warmup_epochs: int = 0
    milestones: list[int] | None = None
    gamma: float = 0.1
    power: float = 2.0
    horizon: float | None = None
    final_factor: float = 1e-2
    interval: Literal["epoch", "step"] = "epoch"
    points: list[list[float]] | None = None

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise unknown_name("schedule", self.name, SCHEDULES)
        if self.interval not in ("epoch", "step"):
            raise unknown_name("interval", str(self.interval), ("epoch", "step"))
        check_ranges(
            self, warmup_epochs=(0, 1e6), gamma=(0, 1e3), power=(0, 1e3), horizon=(1e-3, 1e6), final_factor=(1e-12, 1)
        )
        if any(m < 1 for m in self.milestones or []):
            raise ZooError(f"milestones must be epochs from 1 on, got {self.milestones}")
        if self.points is not None and not _are_points(self.points):
            raise ZooError(
                f"points must be pairs [epoch, factor] with rising epochs and factors of at least 0, got {self.points}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; ``ScheduleConfig(**values)`` takes them back.

        >>> ScheduleConfig(**ScheduleConfig("constant").to_dict()) == ScheduleConfig("constant")
        True
        """
        return asdict(self)

    def create(self, optimizer: Optimizer, epochs: int, steps_per_epoch: int = 1) -> lr_scheduler.LRScheduler:
        """Create the scheduler of an optimizer.

        Args:
            optimizer: the optimizer whose learning rates are scaled.
            epochs: E.
            steps_per_epoch: calls of ``scheduler.step()`` in an epoch: 1, or the number of optimizer steps.

        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> schedule, rates = ScheduleConfig("step", milestones=[1]).create(optimizer, epochs=2), []
        >>> for _ in range(2):
        ...     rates += schedule.get_last_lr()
        ...     optimizer.step()
        ...     schedule.step()
        >>> rates
        [1.0, 0.1]
        """
        if self.warmup_epochs >= max(epochs, 1):
            raise ZooError(f"warmup_epochs must be less than the {epochs} epochs, got {self.warmup_epochs}")
        if self.name == "step" and not self.milestones:
            raise ZooError("schedule step must have milestones, got none")
        if self.name == "piecewise" and not self.points:
            raise ZooError("schedule piecewise must have points, got none")
        warm = self.warmup_epochs * steps_per_epoch
        after = self._after_warmup(optimizer, epochs - self.warmup_epochs, steps_per_epoch, warm)
        if not warm:
            return after
        return WarmUp(optimizer, [lr_scheduler.LinearLR(optimizer, 1 / (warm + 1), 1.0, warm), after], [warm])

    def _after_warmup(self, optimizer: Optimizer, epochs: int, n: int, warm: int) -> lr_scheduler.LRScheduler:
        total = epochs * n
        if self.name == "step":
            milestones = [m * n - warm for m in sorted(self.milestones or [])]
            return lr_scheduler.MultiStepLR(optimizer, milestones, self.gamma)
        if self.name == "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, total)
        if self.name == "polynomial":
            return lr_scheduler.PolynomialLR(optimizer, round((self.horizon or epochs) * n), self.power)
        if self.name == "logarithmic":
            return lr_scheduler.ExponentialLR(optimizer, self.final_factor ** (1 / max(total - 1, 1)))
        if self.name == "piecewise":
            start = warm / n  # points count epochs from the start, warm-up included
            return lr_scheduler.LambdaLR(optimizer, lambda step: _between(self.points or [], start + step / n))
        return lr_scheduler.ConstantLR(optimizer, 1.0, 0)


def _are_points(points: Sequence[Sequence[float]]) -> bool:
    if not points or any(len(point) != 2 or not all(map(math.isfinite, point)) or point[1] < 0 for point in points):
        return False
    return all(a[0] < b[0] for a, b in pairwise(points))


def _between(points: Sequence[Sequence[float]], epoch: float) -> float:
    """Return the factor of an epoch on the line through ``points``."""
    for (e0, f0), (e1, f1) in pairwise(points):
        if epoch < e1:
            return f0 + (f1 - f0) * max(epoch - e0, 0) / (e1 - e0)
    return points[-1][1]


class WarmUp(lr_scheduler.SequentialLR):
    """A ``SequentialLR`` whose parts stay reachable, so that :func:`scale_rates` can reach their base rates.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> len(ScheduleConfig("cosine", warmup_epochs=1).create(optimizer, epochs=3).parts)
    2
    """

    def __init__(
        self, optimizer: Optimizer, parts: Sequence[lr_scheduler.LRScheduler], milestones: Sequence[int]
    ) -> None:
        super().__init__(optimizer, list(parts), list(milestones))
        self.parts = tuple(parts)

    def state_dict(self) -> dict[str, Any]:
        """Return PyTorch's state, without the parts, which it holds already."""
        return {k: v for k, v in super().state_dict().items() if k != "parts"}


def follow(scheduler: lr_scheduler.LRScheduler, config: ScheduleConfig, epochs: int, steps_per_epoch: int = 1) -> None:
    """Move the schedule of a resumed training onto the course of another length, at the step where it is.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> schedule = ScheduleConfig("cosine").create(optimizer, epochs=2)
    >>> optimizer.step(); schedule.step()
    >>> follow(schedule, ScheduleConfig("cosine"), epochs=4)
    >>> round(optimizer.param_groups[0]["lr"], 4)  # cos² of π/8, not of π/4
    0.8536
    """
    groups = scheduler.optimizer.param_groups
    stand_in = SGD([{"params": [torch.zeros(1)], "lr": float(group["initial_lr"])} for group in groups])
    course = config.create(stand_in, epochs, steps_per_epoch)
    for _ in range(scheduler.last_epoch):
        stand_in.step()
        course.step()
    scheduler.load_state_dict(course.state_dict())
    for group, other in zip(groups, stand_in.param_groups):
        group["lr"] = other["lr"]


def scale_rates(optimizer: Optimizer, scheduler: lr_scheduler.LRScheduler, factor: float) -> None:
    """Multiply the learning rates by a factor, now and for the rest of the schedule.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> scheduler = ScheduleConfig("constant", warmup_epochs=1).create(optimizer, epochs=3)
    >>> scale_rates(optimizer, scheduler, 0.1)
    >>> optimizer.step(); scheduler.step(); round(optimizer.param_groups[0]["lr"], 6)
    0.1
    """
    for group in optimizer.param_groups:
        group["lr"] *= factor
        group["initial_lr"] *= factor
    for part in scheduler.parts if isinstance(scheduler, WarmUp) else (scheduler,):
        part.base_lrs = [lr * factor for lr in part.base_lrs]

"""Optimizers and learning-rate schedules from plain numbers, so that every checkpoint can say how it was trained."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from gcpzoo.errors import ZooError, unknown_name

SCHEDULES = ("constant", "step", "cosine", "polynomial", "logarithmic")


def _stage(name: str) -> str:
    """The stage of a parameter: its name up to the first part that ends in a digit (``layer3``, ``features.13``)."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part[-1].isdigit():
            return ".".join(parts[: i + 1])
    return "stem"


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    classifier_lr_factor: float = 1.0,
    head_lr_factor: float = 1.0,
    layer_decay: float | None = None,
    decay_norm_and_bias: bool = True,
) -> list[dict[str, Any]]:
    """Parameters of a :class:`~gcpzoo.models.gcpnet.GCPNet` grouped by learning rate and weight decay.

    Args:
        model: the network; parameters without ``requires_grad`` are left out.
        lr: the learning rate of the backbone without ``layer_decay``.
        weight_decay: as the optimizer understands it.
        classifier_lr_factor: the classifier learns at ``lr * classifier_lr_factor``.
        head_lr_factor: the head, that is its reduction layer, learns at ``lr * head_lr_factor``.
        layer_decay: the backbone's last stage learns at ``lr * layer_decay``, the one before at its square, …
        decay_norm_and_bias: ``False``: no weight decay on parameters of one dimension (norms and biases).
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise ZooError("no parameter is left to train: frozen_stages holds everything")
    stages = list(dict.fromkeys(_stage(n) for n, _ in named if n.startswith("backbone.")))
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        rate = lr
        if name.startswith(("classifier.", "first_classifier.")):
            rate = lr * classifier_lr_factor
        elif name.startswith("head."):
            rate = lr * head_lr_factor
        elif layer_decay is not None and name.startswith("backbone."):
            rate = lr * layer_decay ** (len(stages) - stages.index(_stage(name)))
        decay = weight_decay if decay_norm_and_bias or parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay, name.startswith("backbone.")), []).append(parameter)
    return [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay, _), p in groups.items()]


def create_optimizer(name: str, groups: Iterable[dict[str, Any]], **kwargs: Any) -> Optimizer:
    """Any optimizer of ``torch.optim`` by name; SGD, Adam and AdamW in their fused form unless told otherwise.

    (SGD's needs parameters of a group to join at the same time: the backbone, which may wait, has groups of its own.)

    Raises:
        ZooError: an unknown optimizer or argument, with the nearest names.
    """
    known = {
        n: c
        for n, c in vars(torch.optim).items()
        if inspect.isclass(c) and issubclass(c, Optimizer) and c is not Optimizer
    }
    if name not in known:
        raise unknown_name("optimizer", name, known)
    arguments = [a for a in inspect.signature(known[name]).parameters if a != "params"]
    for key in kwargs:
        if key not in arguments:
            raise unknown_name(f"argument of optimizer {name}", key, arguments)
    if name in ("SGD", "Adam", "AdamW") and "foreach" not in kwargs:
        kwargs = {"fused": True, **kwargs}
    try:
        return known[name](list(groups), **kwargs)
    except (TypeError, ValueError) as error:
        raise ZooError(f"optimizer {name}: {error}") from error


def create_schedule(
    optimizer: Optimizer,
    name: str,
    epochs: int,
    warmup_epochs: int = 0,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
    power: float = 2.0,
    horizon: float | None = None,
    final_factor: float = 1e-2,
    steps_per_epoch: int = 1,
) -> lr_scheduler.LRScheduler:
    r"""Learning-rate factor of epoch :math:`e = 0, 1, \dots` of ``epochs``, after a linear warm-up.

    ==============  =====================================================================
    ``constant``    1
    ``step``        :math:`\gamma^{\#\{m \in \text{milestones} : m \le e\}}`
    ``cosine``      :math:`\tfrac12(1 + \cos(\pi e/E))`
    ``polynomial``  :math:`(1 - e/\text{horizon})^{\text{power}}`, zero from the horizon on
    ``logarithmic`` :math:`\text{final\_factor}^{e/(E-1)}`: equal ratios from 1 to ``final_factor``
    ==============  =====================================================================

    Args:
        optimizer: the optimizer whose learning rates are scaled.
        name: one of the table.
        epochs: E.
        warmup_epochs: epochs of linear rise, which shorten the rest; milestones count from the start.
        milestones, gamma: of ``step``.
        power, horizon: of ``polynomial``; the horizon is E by default. LRadju of GCP_Optimization is ``power=2,
            horizon=49`` at 50 epochs, LRfast ``power=11, horizon=52`` at 30.
        final_factor: of ``logarithmic``.
        steps_per_epoch: 1 changes the rate every epoch; the number of batches changes it every step.
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    if warmup_epochs < 0 or warmup_epochs >= max(epochs, 1):
        raise ZooError(f"warmup_epochs must be at least 0 and less than the {epochs} epochs, got {warmup_epochs}")
    n = steps_per_epoch
    warm, total = warmup_epochs * n, (epochs - warmup_epochs) * n
    after: lr_scheduler.LRScheduler
    if name == "step":
        after = lr_scheduler.MultiStepLR(optimizer, [m * n - warm for m in sorted(milestones)], gamma)
    elif name == "cosine":
        after = lr_scheduler.CosineAnnealingLR(optimizer, total)
    elif name == "polynomial":
        steps = round((horizon or epochs - warmup_epochs) * n)
        after = lr_scheduler.PolynomialLR(optimizer, steps, power)
    elif name == "logarithmic":
        after = lr_scheduler.ExponentialLR(optimizer, final_factor ** (1 / max(total - 1, 1)))
    else:
        after = lr_scheduler.ConstantLR(optimizer, 1.0, 0)
    if not warm:
        return after
    rise = lr_scheduler.LinearLR(optimizer, 1 / (warm + 1), 1.0, warm)
    return lr_scheduler.SequentialLR(optimizer, [rise, after], [warm])


def optimizer_arguments(name: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """``given``, with momentum 0.9 for SGD unless it says otherwise."""
    return {**({"momentum": 0.9} if name == "SGD" else {}), **(given or {})}

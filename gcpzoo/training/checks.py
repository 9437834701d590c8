"""Checks of the values in training's dataclasses, and of labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gcpzoo.errors import ZooError


def check_ranges(owner: Any, **ranges: tuple[float, float]) -> None:
    """Check that attributes lie between two bounds, both included; ``None`` passes.

    Raises:
        ZooError: naming the attribute, the bounds and what was given.

    >>> from types import SimpleNamespace
    >>> check_ranges(SimpleNamespace(dropout=1.5), dropout=(0, 1))
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: dropout must be between 0 and 1, got 1.5
    """
    for name, (least, most) in ranges.items():
        value = getattr(owner, name)
        if value is not None and not (math.isfinite(value) and least <= value <= most):
            raise ZooError(f"{name} must be between {least:g} and {most:g}, got {value}")


def check_group(kind: type[Any], name: str, value: Any) -> Any:
    """Give an argument that is one of training's dataclasses, also from the plain values that a checkpoint keeps.

    Raises:
        ZooError: if it is neither.

    >>> from gcpzoo.training.schedules import ScheduleConfig
    >>> check_group(ScheduleConfig, "schedule", {"name": "cosine"}).name
    'cosine'
    """
    if isinstance(value, Mapping):
        return kind(**value)
    if not isinstance(value, kind):
        raise ZooError(f"{name} must be of type {kind.__name__} or a mapping of its values, got {value!r}")
    return value


def check_labels(labels: Any, classes: int) -> None:
    """Check that the labels of a batch are classes; anything but a vector of whole numbers passes.

    Raises:
        ZooError: naming the label and its place in the batch.

    >>> import torch
    >>> check_labels(torch.tensor([0, 7]), classes=3)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: labels must be between 0 and 2, got 7 for image 1 of a batch of 2
    """
    if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.is_floating_point():
        return
    if wrong := ((labels < 0) | (labels >= classes)).nonzero().flatten().tolist():
        label = int(labels[wrong[0]])
        place = f"image {wrong[0]} of a batch of {len(labels)}"
        raise ZooError(f"labels must be between 0 and {classes - 1}, got {label} for {place}")

"""Checks of the values in training's dataclasses."""

from __future__ import annotations

import math
from typing import Any

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

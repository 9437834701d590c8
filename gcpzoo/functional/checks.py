"""Checks of arguments that functions, heads and blocks share. Each raises ``X must be …, got …``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.limits import COUNT


def check_count(name: str, value: Any, most: int = COUNT) -> None:
    """Require a whole number of at least 1, and of at most ``most``.

    >>> check_count("iterations", 5)
    >>> check_count("iterations", 0)
    Traceback (most recent call last):
    ...
    gcpzoo.errors.ZooError: iterations must be at least 1, got 0
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise ZooError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise ZooError(f"{name} must be at least 1, got {value}")
    if value > most:
        raise ZooError(f"{name} must be at most {most}, got {value}")


def check_positive(name: str, value: Any) -> None:
    """Require a finite number above 0.

    >>> check_positive("alpha", 0.5)
    >>> check_positive("alpha", -1)
    Traceback (most recent call last):
    ...
    gcpzoo.errors.ZooError: alpha must be positive, got -1
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise ZooError(f"{name} must be positive, got {value!r}")


def check_not_negative(name: str, value: Any) -> None:
    """Require a finite number of at least 0.

    >>> check_not_negative("sparsity", 0)
    >>> check_not_negative("sparsity", -1)
    Traceback (most recent call last):
    ...
    gcpzoo.errors.ZooError: sparsity must be at least 0, got -1
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ZooError(f"{name} must be at least 0, got {value!r}")


def check_probability(name: str, value: Any) -> None:
    """Require a number from 0 to 1.

    >>> check_probability("dropout", 0.5)
    >>> check_probability("dropout", 1.5)
    Traceback (most recent call last):
    ...
    gcpzoo.errors.ZooError: dropout must be a number between 0 and 1, got 1.5
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ZooError(f"{name} must be a number between 0 and 1, got {value!r}")


def check_choice(name: str, value: Any, choices: Sequence[str | int | None]) -> None:
    """Require one of a few settings; for a list of names see :func:`check_name`.

    >>> check_choice("mean", "scalar", ("scalar", "channel"))
    >>> check_choice("norm", "l1", (None, "l2", "frobenius"))
    Traceback (most recent call last):
    ...
    gcpzoo.errors.ZooError: norm must be None, 'l2' or 'frobenius', got 'l1'
    """
    if value not in choices:
        *first, last = map(repr, choices)
        raise ZooError(f"{name} must be {', '.join(first)} or {last}, got {value!r}")


def check_name(kind: str, name: Any, available: Iterable[str]) -> None:
    """Require a known name; the error suggests the nearest ones.

    >>> check_name("root", "isqrt", ["isqrt", "exact"])
    >>> check_name("root", "isqr", ["isqrt", "exact"])
    Traceback (most recent call last):
    ...
    gcpzoo.errors.ZooError: unknown root 'isqr': did you mean isqrt?
    """
    names = list(available)
    if name not in names:
        raise unknown_name(kind, str(name), names)

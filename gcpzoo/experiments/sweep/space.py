"""What a search of a sweep may try, read from the sweep's file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.experiments.sweep.checks import check_keys
from gcpzoo.experiments.sweep.options import Options, read_options
from gcpzoo.training.former_names import refuse_former_names

KEYS = ("trials", "space", "options", "seed")
MOST_TRIALS = 6


@dataclass(frozen=True)
class Search:
    """How learning rates and the like are chosen: with the same budget for every cell, on validation images.

    Attributes:
        space: dotted option → smallest and largest value, searched on a logarithmic scale.
        trials: trainings for each cell, at most six.
        options: options of the trials alone, such as fewer epochs.
        seed: of the search and of the trials' trainings.

    >>> Search({"model.optimizer.lr": (1e-4, 1e-2)}, trials=4).seed
    0
    """

    space: dict[str, tuple[float, float]]
    trials: int
    options: Options = field(default_factory=dict)
    seed: int = 0


def read_search(given: Any, where: str) -> Search | None:
    """Read the search of a sweep; nothing where none is asked for.

    Args:
        given: a mapping of ``trials``, ``space``, ``options`` and ``seed``.
        where: origin, named in errors.

    Raises:
        ZooError: if a value is wrong; whether the options exist, the parser of ``gcpzoo fit`` knows.

    >>> read_search({"space": {"model.optimizer.lr": [0.1, 0.01]}}, "mine.yaml: search")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: mine.yaml: search.space.model.optimizer.lr must be two finite numbers above 0, ...
    """
    if given is None:
        return None
    check_keys(given, KEYS, where)
    trials, seed, space = given.get("trials", MOST_TRIALS), given.get("seed", 0), given.get("space")
    if not _is_whole(trials) or not 1 <= trials <= MOST_TRIALS:
        raise ZooError(f"{where}.trials must be a whole number from 1 to {MOST_TRIALS}, got {trials!r}")
    if not is_seed(seed):
        raise ZooError(f"{where}.seed must be a whole number from 0 to 2^32 - 1, got {seed!r}")
    if not isinstance(space, Mapping) or not space:
        raise ZooError(f"{where}.space must map options to [smallest, largest], got {space!r}")
    for option, ends in space.items():
        numbers = isinstance(ends, list) and len(ends) == 2 and all(map(_is_finite, ends))
        if not numbers or not 0 < ends[0] < ends[1]:
            hint = "; YAML's numbers need a point, as in 1.0e-4" if "'" in repr(ends) else ""
            raise ZooError(
                f"{where}.space.{option} must be two finite numbers above 0, the smaller first, got {ends!r}{hint}"
            )
        if str(option).startswith("data") or str(option) in ("evaluate", "seed_everything"):
            raise ZooError(f"{where}.space must hold options of the model or the trainer, got {option!r}")
    refuse_former_names(dict(space), where=f"{where}.space: ")
    options = read_options(given.get("options"), f"{where}.options")
    if options.keys() & {"evaluate", "data", "seed_everything"}:
        raise ZooError(f"{where}.options must be options of the model or the trainer, got {sorted(options)}")
    return Search({str(o): (float(a), float(b)) for o, (a, b) in space.items()}, trials, options, seed)


def is_seed(value: Any) -> bool:
    """Say whether a value is a seed that a training takes.

    >>> is_seed(0), is_seed(2**32), is_seed(True)
    (True, False, False)
    """
    return _is_whole(value) and 0 <= value < 2**32


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

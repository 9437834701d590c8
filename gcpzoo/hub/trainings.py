"""The sweep that a checkpoint is one training of: its part of a record, and what cards say of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict
from typing_extensions import TypedDict  # pydantic's: Python 3.11 has one that it does not take


class Interval(TypedDict):
    """A mean in per cent, or points of it, with its 95 % interval over seeds; without one where there is one seed.

    >>> Interval(mean=93.5, low=93.0, high=94.0, seeds=[0, 1, 2])["mean"]
    93.5
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[misc]
    mean: float
    low: float | None
    high: float | None
    seeds: list[int]


class Control(Interval):
    """The same of the head that it is compared with.

    >>> Control(head="gap", mean=91.5, low=None, high=None, seeds=[0])["head"]
    'gap'
    """

    head: str


class Trainings(TypedDict):
    """What ``checkpoints/add.py`` writes of the sweep.

    ``sweep`` is its file, ``run`` the folder of the training, ``choice`` why it is this one of the seeds, ``weights``
    the type of the stored weights, ``unrounded`` the accuracies before the rounding to it, ``in_run`` those that the
    run itself measured, perhaps in mixed precision, ``chosen`` what a search chose.

    >>> sorted(Trainings.__annotations__)
    ['choice', 'chosen', 'control', 'difference', 'in_run', 'run', 'sweep', 'top1', 'unrounded', 'weights']
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[misc]
    sweep: str
    run: str
    choice: str
    weights: str
    in_run: dict[str, float]
    unrounded: dict[str, float]
    chosen: dict[str, Any] | None
    top1: Interval
    control: Control | None
    difference: Interval | None


def over_seeds(known: Trainings | None) -> str:
    """Say in a line what all trainings of a sweep reached, and those of the control; nothing where none is known.

    >>> over_seeds(None)
    ''
    """
    if not known:
        return ""
    text = _tell(known["top1"])
    if known["control"]:
        text += f"; with {known['control']['head']} {_tell(known['control'])}"
    if known["difference"]:
        text += f"; difference {_tell(known['difference'], '+')}"
    return text


def _tell(found: Mapping[str, Any], sign: str = "") -> str:
    seeds = f"seed{'s' * (len(found['seeds']) > 1)} {', '.join(map(str, found['seeds']))}"
    if found["low"] is None or found["high"] is None:
        return f"{found['mean']:{sign}.2f} ({seeds})"
    return f"{found['mean']:{sign}.2f} (95 % interval {found['low']:{sign}.2f} to {found['high']:{sign}.2f}, {seeds})"

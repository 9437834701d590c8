"""Hyper-parameters of format 1 (gcpzoo 0.1), which were flat, in the form of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOVED = {
    "optimizer": ("optimizer", "name"),
    "optimizer_args": ("optimizer", "args"),
    "lr": ("optimizer", "lr"),
    "weight_decay": ("optimizer", "weight_decay"),
    "classifier_lr_factor": ("optimizer", "classifier_lr_factor"),
    "head_lr_factor": ("optimizer", "head_lr_factor"),
    "layer_decay": ("optimizer", "layer_decay"),
    "decay_norm_and_bias": ("optimizer", "decay_norm_and_bias"),
    "schedule": ("schedule", "name"),
    "warmup_epochs": ("schedule", "warmup_epochs"),
    "milestones": ("schedule", "milestones"),
    "gamma": ("schedule", "gamma"),
    "power": ("schedule", "power"),
    "horizon": ("schedule", "horizon"),
    "final_factor": ("schedule", "final_factor"),
    "schedule_interval": ("schedule", "interval"),
}
"""Where each flat argument of gcpzoo 0.1 went: group and name."""
RENAMED = {"frozen_stages": "frozen"}
DROPPED = ("_instantiator", "_class_path")


def upgrade_hyper_parameters(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the hyper-parameters of a checkpoint to the arguments of :class:`gcpzoo.training.ClassificationTask`.

    Those of format 2 pass through unchanged.

    >>> upgrade_hyper_parameters({"head": "gap", "optimizer": "SGD", "lr": 0.1, "schedule": "step"})
    {'head': 'gap', 'optimizer': {'name': 'SGD', 'lr': 0.1}, 'schedule': {'name': 'step'}}
    """
    arguments: dict[str, Any] = {}
    for key, value in stored.items():
        if key in DROPPED:
            continue
        if key in MOVED and not isinstance(value, Mapping):
            group, name = MOVED[key]
            arguments.setdefault(group, {})[name] = value
        elif key == "optimizer_args":
            arguments.setdefault("optimizer", {})["args"] = dict(value)
        else:
            arguments[RENAMED.get(key, key)] = value
    return arguments

"""Comparing the files of two runs, and the options of runs that use everything random."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

RANDOM = [
    "--data.workers", "2", "--data.augment.randaugment", "5", "--data.augment.erasing", "0.5",
    "--model.mixup_alpha", "0.4", "--model.cutmix_alpha", "0.4", "--model.dropout", "0.3",
    "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging", "--trainer.callbacks.decay", "0.9",
    "--trainer.callbacks+=gcpzoo.training.CovarianceSpectrum",
]  # fmt: skip
"""Options with which every part of a training that draws random numbers does."""


def read_checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Name every value of nested mappings and lists that is not the same bit by bit, but for times."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield name
    elif isinstance(one, dict) and isinstance(other, dict):
        yield from (f"{name}.{key}" for key in one.keys() ^ other.keys())
        for key in one.keys() & other.keys() - {"seconds"}:
            yield from differences(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other)):
            yield from differences(a, b, f"{name}[{i}]")
    elif one != other or type(one) is not type(other):
        yield f"{name}: {one!r} and {other!r}"


def assert_same_results(one: Path, other: Path) -> None:
    """Compare all of the last checkpoints, and ``metrics.json`` but for its times."""
    assert not list(differences(read_checkpoint(one), read_checkpoint(other)))
    reports = [json.loads((run / "metrics.json").read_text()) for run in (one, other)]
    assert not list(differences(*reports))

"""Checks of the arguments of a model, before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.functional.checks import check_probability
from gcpzoo.limits import CHANNELS, CLASSES, LAYERS
from gcpzoo.models.backbones import create_backbone, reads_files

FUSIONS = ("sum", "mean", "mean_norm", "concat", "all")


def check_model(backbone: Any, head: Any, num_classes: Any, dim: Any, fusion: Any, hidden: Any, dropout: Any) -> None:
    """Require values of the right type and range; which backbones and heads there are is checked elsewhere.

    >>> check_model("resnet18", "isqrt", 10, dim=64, fusion="product", hidden=[], dropout=0.0)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown fusion 'product'; available: all, concat, mean, mean_norm, sum
    """
    for name, value in (("backbone", backbone), ("head", head)):
        if not isinstance(value, str):
            raise ZooError(f"{name} must be a name, got {value!r}")
    check_classes(num_classes)
    if dim is not None and dim != "auto" and not _are_sizes([dim] if isinstance(dim, int) else dim, least=1):
        raise ZooError(
            f"dim must be a positive number of channels, a list of such, null or 'auto', got {repr(dim)[:100]} "
            f"(limits: {CHANNELS:,} channels, {LAYERS} in a list)"
        )
    if fusion is not None and fusion not in FUSIONS:
        raise unknown_name("fusion", str(fusion), FUSIONS)
    if not _are_sizes(hidden, least=0):
        raise ZooError(
            f"hidden must be a list of positive sizes, got {repr(hidden)[:100]} "
            f"(limits: {LAYERS} layers of at most {CHANNELS:,})"
        )
    check_probability("dropout", dropout)


def check_backbone_args(value: Any) -> dict[str, Any]:
    """Require arguments of a backbone's own constructor, none of which reads a file.

    >>> check_backbone_args({"checkpoint_path": "weights.pth"})
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: backbone argument 'checkpoint_path' would read other files; use pretrained_backbone or ...
    """
    arguments = as_mapping("backbone_args", value)
    if files := sorted(filter(reads_files, arguments)):
        raise ZooError(
            f"backbone argument {files[0]!r} would read other files; use pretrained_backbone or backbone_weights"
        )
    if ours := set(inspect.signature(create_backbone).parameters) & set(arguments):
        raise ZooError(f"backbone_args must be arguments of the backbone's constructor, got {min(ours)!r}")
    return arguments


def check_classes(value: Any) -> None:
    """Require a number of classes.

    >>> check_classes(0)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: num_classes must be a whole number of at least 1, got 0 (limit: 1,000,000)
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= CLASSES:
        raise ZooError(f"num_classes must be a whole number of at least 1, got {value!r} (limit: {CLASSES:,})")


def as_mapping(name: str, value: Any) -> dict[str, Any]:
    """Require a dictionary with string keys; ``None`` stands for an empty one.

    >>> as_mapping("head_args", None)
    {}
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ZooError(f"{name} must be a mapping from names to values, got {value!r}")
    return dict(value)


def _are_sizes(values: Any, least: int) -> bool:
    if not isinstance(values, list | tuple) or not least <= len(values) <= LAYERS:
        return False
    return all(isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= CHANNELS for v in values)

"""What the classes of a network are called."""

from __future__ import annotations

from typing import Any


def class_labels(model: Any) -> tuple[list[str], list[str]]:
    """Give the ids of a network's classes, and what people read in their place; their numbers where none are known.

    >>> from gcpzoo.models import create_model
    >>> class_labels(create_model("resnet18", "gap", num_classes=2))
    (['0', '1'], ['0', '1'])
    """
    ids = model.class_names or [str(i) for i in range(model.num_classes)]
    return ids, model.class_descriptions or ids

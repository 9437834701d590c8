"""Where a training starts: a model of the zoo, a folder, a run, or a file of weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.hub.loading import load
from gcpzoo.hub.records import get_record, list_models
from gcpzoo.models.recognition import recognize
from gcpzoo.training.network import is_weights_file

OF_BACKBONE = ("backbone", "until", "blocks", "backbone_args")


@dataclass(frozen=True)
class Source:
    """A backbone with weights.

    Attributes:
        model: options of the model that build it.
        words: what people read.

    >>> Source({"backbone": "resnet18"}, "a new resnet18").model["backbone"]
    'resnet18'
    """

    model: dict[str, Any]
    words: str


def find_source(given: str, backbone: str | None = None) -> Source:
    """Find the backbone in what ``--from`` names.

    Args:
        given: a model of the zoo, ``hf-hub:owner/repo``, a folder, a run or its ``.ckpt``, or a file of weights.
        backbone: name of the backbone in a file of weights; null: recognized by its tensors.

    Raises:
        ZooError: if there is nothing of this name, or a file's backbone is not recognized.

    >>> find_source("resnet18_isqrt.cub50").model
    {'backbone': 'resnet18', 'until': 'layer3', 'backbone_weights': 'resnet18_isqrt.cub50'}
    """
    if is_weights_file(given):
        if not os.path.isfile(given):
            raise ZooError(f"no weights file {given!r}")
        weights = {"backbone_weights": str(Path(given).absolute())}
        name = Path(given).name
        if backbone is not None:
            return Source({"backbone": backbone, **weights}, f"{backbone} with the weights in {name}")
        found = recognize(given)
        cut = {"until": found.until} if found.until else {}
        words = f"{found.backbone}{_cut(found.until)} with the weights in {name}, by whose tensors"
        return Source({"backbone": found.backbone, **cut, **weights}, f"{words} it was recognized")
    config = get_record(given).config if given in list_models() else load(given).config
    own = {key: config[key] for key in OF_BACKBONE if config.get(key)}
    if backbone is not None and backbone != own["backbone"]:
        raise ZooError(
            f"{given} has the backbone {own['backbone']!r}, got --model.backbone {backbone!r}: leave one out"
        )
    words = f"{own['backbone']}{_cut(own.get('until'))} of {given}; its head is trained anew"
    return Source({**own, "backbone_weights": given}, words)


def _cut(until: str | None) -> str:
    return f" up to {until}" if until else ""

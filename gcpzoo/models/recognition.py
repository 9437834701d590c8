"""Whose weights a file holds: a backbone of torchvision, recognized by the names and shapes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gcpzoo.errors import ZooError
from gcpzoo.models import from_torchvision
from gcpzoo.models.base import TAIL
from gcpzoo.models.weights import misfit, read_tensors

FAMILIES = {
    "mobilenet_v2": "features.1.conv.0.0.weight",
    "resnet": "layer1.0.conv1.weight",
    "wide_resnet": "layer1.0.conv1.weight",
    "resnext": "layer1.0.conv1.weight",
    "mobilenet_v3": "features.1.block.0.0.weight",
    "efficientnet": "features.1.0.block.0.0.weight",
    "convnext": "features.1.0.block.0.weight",
    "densenet": "features.denseblock1.denselayer1.norm1.weight",
    "vgg": "features.0.weight",
    "alexnet": "features.0.weight",
    "squeezenet": "features.3.squeeze.weight",
    "shufflenet": "stage2.0.branch1.0.weight",
    "mnasnet": "layers.0.weight",
    "regnet": "trunk_output.block1.block1-0.proj.0.weight",
    "vit": "conv_proj.weight",
    "swin": "features.0.0.weight",
}
"""Start of the names of backbones, and a tensor that all of them have: few are built to be compared."""


@dataclass(frozen=True)
class Recognized:
    """A backbone that a file's tensors fit.

    Attributes:
        backbone: its name in torchvision.
        until: last stage that the file has whole; ``None``: all of them.

    >>> Recognized("resnet18", "layer3")
    Recognized(backbone='resnet18', until='layer3')
    """

    backbone: str
    until: str | None = None


def recognize(path: str | Path) -> Recognized:
    """Find the backbone whose weights a safetensors or PyTorch file holds in torchvision's names.

    Tensors of a classifier do not count. Where the last stages lack tensors, the backbone is cut before them.

    Raises:
        ZooError: if the file cannot be read, or fits no backbone of torchvision.

    >>> import tempfile
    >>> from torchvision import models
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save(models.squeezenet1_1().state_dict(), f"{folder}/net.pth")
    ...     recognize(f"{folder}/net.pth")
    Recognized(backbone='squeezenet1_1', until=None)
    """
    shapes = {key: tuple(value.shape) for key, value in read_tensors(path).items() if key.split(".")[0] not in TAIL}
    kinds = [kind for kind, key in FAMILIES.items() if key in shapes]
    best: tuple[int, Recognized] | None = None
    for name in (n for kind in kinds for n in from_torchvision.names() if n.startswith(kind)):
        stages = _stages(name)
        own = {key: shape for stage in stages.values() for key, shape in stage.items()}
        found = misfit(own, shapes)
        if found.unexpected or found.misshapen:
            continue
        missing = {key for key in found.missing if not key.endswith("num_batches_tracked")}
        if not missing:
            return Recognized(name)
        last = _last_whole(stages, missing)
        if last is not None and (best is None or len(missing) < best[0]):
            best = len(missing), Recognized(name, last)
    if best is None:
        names = ", ".join(list(shapes)[:3])
        raise ZooError(
            f"{str(path)!r} fits no backbone of torchvision: its {len(shapes)} tensors are named {names} …; name the "
            "backbone by --model.backbone (timm:NAME for one of timm's)"
        )
    return best[1]


def _stages(name: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """Give the shapes of the tensors of each stage of a backbone, without the memory for them."""
    with torch.device("meta"):
        backbone: Any = from_torchvision.build(name, False, None, {})
    stages: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, value in backbone.state_dict().items():
        stages.setdefault(key.split(".")[0], {})[key] = tuple(value.shape)
    return stages


def _last_whole(stages: dict[str, dict[str, tuple[int, ...]]], missing: set[str]) -> str | None:
    """Name the stage before the first that lacks tensors; ``None`` where more than the end is missing."""
    names = list(stages)
    first = next(i for i, name in enumerate(names) if missing & stages[name].keys())
    return names[first - 1] if first > len(names) // 2 else None

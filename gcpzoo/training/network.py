"""The network that a training starts from: new, with the weights of another backbone, or a whole checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.hub.loading import load
from gcpzoo.hub.run_checkpoint import read_run_checkpoint
from gcpzoo.models.gcpnet import GCPNet, create_model
from gcpzoo.paths import WEIGHT_FILES

START_OPTIONS = ("checkpoint", "backbone_weights", "pretrained_backbone", "allow_partial")
"""Arguments of the task that say where its weights come from. They are not kept: a run's checkpoint has its own."""


@dataclass
class StartingPoint:
    """A network ready for training.

    Attributes:
        model: the network, in training mode.
        source: where its weights come from, in words; ``None``: random.
        trained_classes: number of classes that the checkpoint knew; ``None`` without one.
        licence: of the model that the weights come from; ``None``: not known.

    >>> StartingPoint(create_model("resnet18", "gap", 2)).source is None
    True
    """

    model: GCPNet
    source: str | None = None
    trained_classes: int | None = None
    licence: str | None = None


def build_network(
    network: Mapping[str, Any],
    defaults: Mapping[str, Any],
    checkpoint: str | None = None,
    backbone_weights: str | None = None,
    pretrained_backbone: bool | str = False,
    allow_partial: bool = False,
) -> StartingPoint:
    """Build the network of a training.

    Args:
        network: the configuration, one value for each of ``GCPNet.CONFIG_KEYS``.
        defaults: the values of ``network`` that count as not given.
        checkpoint: a model of the zoo, ``hf-hub:owner/repo``, a folder or a run's ``.ckpt``; it brings its own network,
            and a new classifier replaces its own where the number of classes differs.
        backbone_weights: a file with weights of the backbone, or a model whose backbone is taken.
        pretrained_backbone: fetch the backbone's ImageNet weights; a string picks one of torchvision's.
        allow_partial: accept weights that lack tensors of the backbone.

    Raises:
        ZooError: if two sources of weights are given, or ``network`` contradicts the checkpoint.

    >>> network = {"backbone": "resnet18", "head": "gap", "num_classes": 2}
    >>> build_network(network, {}).model.num_classes
    2
    """
    given = [
        name
        for name, value in (
            ("checkpoint", checkpoint),
            ("backbone_weights", backbone_weights),
            ("pretrained_backbone", pretrained_backbone),
        )
        if value
    ]
    if len(given) > 1:
        raise ZooError(f"weights must come from one source, got {' and '.join(given)}: leave out all but one")
    if checkpoint:
        return _from_checkpoint(checkpoint, network, defaults)
    weights: str | Mapping[str, Tensor] | None = backbone_weights
    licence = None
    if backbone_weights is not None and not is_weights_file(backbone_weights):
        base = load(backbone_weights)
        backbone: Any = base.backbone
        licence = _licence(base)
        weights = getattr(backbone, "net", backbone).state_dict()
    model = create_model(
        **network,
        pretrained_backbone=pretrained_backbone,
        backbone_weights=weights,
        allow_partial=allow_partial,
    )
    pretrained = f"pretrained {network['backbone']}" if pretrained_backbone else None
    return StartingPoint(model, backbone_weights or pretrained, licence=licence)


def is_weights_file(name: str) -> bool:
    """Say whether a source is a file of tensors; a run's ``.ckpt`` is a model.

    >>> is_weights_file("mobilenet_v2.pth"), is_weights_file("runs/cub/checkpoints/last.ckpt")
    (True, False)
    """
    return str(name).endswith(WEIGHT_FILES) and not (str(name).endswith(".ckpt") and _is_run(name))


def _is_run(name: str) -> bool:
    """Say whether a ``.ckpt`` file was written by ``gcpzoo fit``; one that is missing counts as such."""
    try:
        read_run_checkpoint(name)
    except ZooError:
        return not Path(name).is_file()
    return True


def _from_checkpoint(name: str, network: Mapping[str, Any], defaults: Mapping[str, Any]) -> StartingPoint:
    model = load(name)
    for key, value in network.items():
        if key != "num_classes" and value not in (defaults.get(key), model.config[key]):
            raise ZooError(
                f"{name} brings its own architecture, {key}={model.config[key]!r}: leave out {value!r}, "
                "or take only its backbone by backbone_weights"
            )
    trained, licence = model.num_classes, _licence(model)
    if trained != network["num_classes"]:
        model.reset_classifier(network["num_classes"])
    model.record = None  # its figures are not those of what is trained from it
    return StartingPoint(model.train(), name, trained, licence)


def _licence(model: GCPNet) -> str | None:
    known: str | None = getattr(model.record, "licence", None)
    return known if known not in ("", "unknown") else None

"""Backbones: a name of torchvision, ``timm:NAME`` or one of ours, to a feature extractor.

It makes features ``(B, C, h, w)`` of images ``(B, 3, H, W)``.
Transformers of tokens give ``(B, C, N, 1)``, their ``num_prefix_tokens`` class tokens first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gcpzoo.models.from_timm as from_timm
import gcpzoo.models.from_torchvision as from_torchvision
import gcpzoo.models.sovit as sovit
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.functional.checks import check_choice
from gcpzoo.models.base import TAIL, Backbone
from gcpzoo.models.surgery import evaluating, last_stage, set_last_stride
from gcpzoo.models.weights import misfit, read_tensors

FILES = ("checkpoint", "pretrained", "weights", "cache_dir", "url", "file", "hf_hub")
"""Starts of the names of those arguments of the libraries' constructors that make them read or fetch files."""


def reads_files(argument: str) -> bool:
    """Say whether an argument of a network's constructor could make it read or fetch files.

    >>> reads_files("checkpoint_path"), reads_files("pretrained_cfg_overlay"), reads_files("drop_path_rate")
    (True, True, False)
    """
    return argument.startswith(FILES)


def list_backbones(timm: bool = False) -> list[str]:
    """List all backbones: torchvision's classification networks, ours, and with ``timm`` timm's as ``timm:NAME``.

    >>> "resnet50" in list_backbones(), "timm:resnet50" in list_backbones(timm=True)
    (True, True)
    """
    return sorted(from_torchvision.names() + sovit.names()) + (from_timm.names() if timm else [])


def check_backbone(name: str) -> None:
    """Refuse a backbone that does not exist.

    Raises:
        ZooError: if no library has this name; the message names the nearest.

    >>> check_backbone("resnet19")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown backbone 'resnet19': did you mean resnet1...
    """
    library: Any = _library(name)
    if not library.is_known(name):
        raise unknown_name("backbone", name, list_backbones(timm=True))


def create_backbone(
    name: str,
    pretrained: bool | str = False,
    weights: str | Path | Mapping[str, Tensor] | None = None,
    last_stride: int | None = None,
    until: str | None = None,
    allow_partial: bool = False,
    keep_resolution: bool = False,
    **kwargs: Any,
) -> Backbone:
    """Create a feature extractor by name.

    Args:
        name: a classification network of torchvision (``resnet50``), ``timm:NAME``, or one of DropCov's transformers
            (``sovit_drop_small``).
        pretrained: fetch the library's ImageNet weights; a string picks one of torchvision's, e.g. ``IMAGENET1K_V1``.
        weights: a safetensors or pth file (read without unpickling code), or a state dict, for the backbone.
        last_stride: 1 keeps the resolution in the last stage (ResNets: ``layer4`` at stride 1, dilation 1; VGG: no last
            pooling), as all published covariance pooling networks do; 2 is the network's own; ``None``: its own.
        until: cut after this stage, e.g. ``layer3``, ``features.13``.
        allow_partial: accept weights that lack some of the backbone's tensors, which then keep their random start.
        keep_resolution: let ``last_stride=None`` mean 1 if the network has the choice.
        kwargs: arguments of the network's own constructor.

    Raises:
        ZooError: if a name, stage or argument is unknown, the network does not allow the surgery, or the weights do
            not fit.

    >>> import torch
    >>> backbone = create_backbone("resnet18", until="layer2")
    >>> backbone.num_features, backbone(torch.zeros(1, 3, 64, 64)).shape
    (128, torch.Size([1, 128, 8, 8]))
    """
    check_choice("last_stride", last_stride, (1, 2, None))
    if until is not None and not isinstance(until, str):
        raise ZooError(f"until must be the name of a stage, got {until!r}")
    if weights is not None and not isinstance(weights, str | Path | Mapping):
        raise ZooError(f"backbone weights must be a file or a state dict, got {weights!r}")
    if pretrained and weights is not None:
        raise ZooError("give either pretrained weights or a weights file for the backbone, not both")
    check_backbone(name)
    library: Any = _library(name)
    backbone: Backbone = library.build(name, pretrained, until, kwargs)
    backbone.name = name
    if until is None and last_stage(backbone) is not None:
        backbone.last_stride = 2
    if last_stride is None and keep_resolution and backbone.last_stride is not None:
        last_stride = 1
    if last_stride is not None and until is None:
        set_last_stride(backbone, last_stride)
    elif last_stride == 1:
        raise ZooError(f"last_stride=1 changes the last stage of {name}, which until={until!r} cuts off")
    if weights is not None:
        load_backbone_weights(backbone, weights, allow_partial)
    _probe(backbone)
    return backbone


def _library(name: str) -> Any:
    if name.startswith(from_timm.PREFIX):
        return from_timm
    return sovit if sovit.is_known(name) else from_torchvision


@torch.no_grad()
def _probe(backbone: Backbone) -> None:
    """Find ``num_features`` and the layout by a forward pass on the meta device, which computes nothing."""
    meta = {k: v.to("meta") for k, v in [*backbone.named_parameters(), *backbone.named_buffers()]}
    size = (1, 3, backbone.input_size, backbone.input_size)
    try:
        with evaluating(backbone):
            y = torch.func.functional_call(backbone, meta, torch.zeros(size, device="meta"))
    except RuntimeError as error:
        raise ZooError(f"backbone {backbone.name!r} gives no feature map: {error}") from error
    if not isinstance(y, Tensor) or y.ndim != 4:
        raise ZooError(f"backbone {backbone.name!r} gives no feature map (B, C, h, w)")
    if isinstance(backbone, from_timm.TimmBackbone) and y.shape[3] > 1 and from_timm.is_channels_last(backbone.net, y):
        backbone.channels_last = True
        y = y.permute(0, 3, 1, 2)
    backbone.num_features = y.shape[1]


def load_backbone_weights(
    backbone: Backbone, weights: str | Path | Mapping[str, Tensor], allow_partial: bool = False
) -> tuple[str, ...]:
    """Load the backbone's tensors from a file or a state dict in torchvision's or timm's own keys.

    Tensors of the classifier and of stages that were cut off are ignored.

    Returns:
        The missing keys. Without ``allow_partial`` there are none.

    Raises:
        ZooError: if tensors are missing, unexpected or misshapen; each is named.

    >>> backbone = create_backbone("resnet18", until="layer1")
    >>> load_backbone_weights(backbone, create_backbone("resnet18").state_dict())
    ()
    """
    source = f"{str(weights)!r}" if isinstance(weights, str | Path) else "the given state dict"
    state = read_tensors(weights) if isinstance(weights, str | Path) else dict(weights)
    target: Any = backbone.network
    own = target.state_dict()
    classifier = getattr(target, "pretrained_cfg", {}).get("classifier") or ()
    tail = TAIL + ((classifier,) if isinstance(classifier, str) else tuple(classifier))
    ignored = tuple(f"{t}." for t in tail)
    kept = {k: v for k, v in state.items() if k in own or not (k in backbone.dropped_keys or k.startswith(ignored))}
    found = misfit({k: v for k, v in own.items() if k in kept or not k.endswith("num_batches_tracked")}, kept)
    if found.unexpected or found.misshapen or len(found.missing) == len(own):
        raise ZooError(f"{source} does not fit backbone {backbone.name!r}: {found}")
    if found.missing and not allow_partial:
        more = len(found.missing) - 6
        names = ", ".join(found.missing[:6]) + (f", … ({more} more)" if more > 0 else "")
        raise ZooError(
            f"{source} lacks {len(found.missing)} tensors of backbone {backbone.name!r}: {names}; "
            "cut the backbone before them (until), or set allow_partial to start them at random"
        )
    target.load_state_dict(kept, strict=False)
    return found.missing

"""Surgery on a finished network: the resolution of its last stage, its modules by path, and its mode for a while."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from gcpzoo.blocks import ADAPTERS
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.models.base import Backbone

WHOLE = "backbone"
"""The path of a whole backbone, with the parameters that belong to no module in it, such as a class token."""


def last_stage(backbone: Backbone) -> nn.Module | None:
    """Find what ``last_stride`` changes: a ResNet's ``layer4``, the ``features`` of a VGG; ``None`` elsewhere.

    >>> from gcpzoo.models import create_backbone
    >>> last_stage(create_backbone("mobilenet_v2")) is None
    True
    """
    net: Any = backbone.network
    if isinstance(layer4 := getattr(net, "layer4", None), nn.Module):
        return layer4
    features = getattr(net, "features", None)
    if not isinstance(features, nn.Sequential) or len(features) <= 13:  # AlexNet has 13 layers, VGG-11 has 21
        return None
    is_vgg = all(isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.ReLU | nn.MaxPool2d) for m in features)
    return features if is_vgg and isinstance(features[-1], nn.MaxPool2d) else None


def set_last_stride(backbone: Backbone, stride: int) -> None:
    """Set the stride of the last stage in place: 1 keeps the resolution (dilation stays 1), 2 is the network's own.

    Raises:
        ZooError: if the stride is neither 1 nor 2, or the network has no such stage.

    >>> import torch
    >>> from gcpzoo.models import create_backbone
    >>> backbone = create_backbone("resnet18")
    >>> set_last_stride(backbone, 1)
    >>> backbone(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 512, 4, 4])
    """
    if stride not in (1, 2):
        raise ZooError(f"last_stride must be 1 or 2, got {stride}")
    stage = last_stage(backbone)
    if stage is None:
        if stride == 1:
            raise ZooError(f"{backbone.name} has no last stage whose stride could be 1 (ResNets and VGGs have)")
        return
    backbone.last_stride = stride
    if stride == 2:
        return
    if isinstance(stage, nn.Sequential) and isinstance(stage[-1], nn.MaxPool2d):
        backbone.network.features = stage[:-1]
        return
    block = next(stage.children())
    for parent in block.modules():
        for child, module in list(parent.named_children()):
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
            elif isinstance(module, nn.AvgPool2d):
                setattr(parent, child, nn.Identity())


def find_modules(backbone: Backbone, paths: Sequence[str]) -> list[nn.Module]:
    """Find modules of a backbone by path, e.g. to freeze them.

    A path names a module (``layer1``, ``layer1.0.conv2``, ``features.3``, ``blocks.2``) or the beginning of the paths
    of several (``stages`` of a cut timm network stands for ``stages.0``, ``stages.1``, …); ``backbone`` is the whole.
    Networks of timm are addressed by timm's own names; a leading ``net.`` is accepted.

    Returns:
        The modules in the order of ``paths``, each once. Children of a module that was found are not listed.

    Raises:
        ZooError: if a path names nothing; the message suggests the nearest paths.

    >>> from gcpzoo.models import create_backbone
    >>> backbone = create_backbone("resnet18")
    >>> conv, layer = find_modules(backbone, ["conv1", "layer4.1"])
    >>> conv is backbone.conv1, layer is backbone.layer4[1]
    (True, True)
    >>> find_modules(backbone, ["layer5"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown module of resnet18 'layer5': did you mean layer4 or layer3 or layer2?
    """
    modules = {_plain(name): module for name, module in backbone.network.named_modules() if name} | {WHOLE: backbone}
    found: dict[nn.Module, None] = {}
    for path in paths:
        wanted = _plain(path.removeprefix("net."))
        if wanted in modules:
            matches = [wanted]
        else:  # the beginning of several paths: their outermost modules
            below = [name for name in modules if wanted and name.startswith(f"{wanted}.")]
            matches = [name for name in below if name.rpartition(".")[0] not in below]
        if not matches:
            raise unknown_name(f"module of {backbone.name}", path, modules)
        found.update(dict.fromkeys(modules[name] for name in matches))
    return list(found)


def freeze(modules: Iterable[nn.Module]) -> None:
    """Exclude the parameters of modules from the training, except those of adapters in them (``psrp``).

    >>> from gcpzoo.models import create_model
    >>> backbone = create_model("timm:test_vit", blocks={"psrp": {}}).backbone
    >>> freeze([backbone])
    >>> [name for name, p in backbone.named_parameters() if p.requires_grad][:2]
    ['net.blocks.0.psrp.down.weight', 'net.blocks.0.psrp.scale.weight']
    """
    for module in modules:
        adapters = [part for part in module.modules() if isinstance(part, ADAPTERS)]
        trained = {id(parameter) for adapter in adapters for parameter in adapter.parameters()}
        for parameter in module.parameters():
            if id(parameter) not in trained:
                parameter.requires_grad_(False)


def _plain(path: str) -> str:
    """The path in the whole network: a cut timm network holds ``stages.1`` as ``stages_1``."""
    return re.sub(r"^([a-z]+)_(\d+)(?=\.|$)", r"\1.\2", path)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set a network to evaluation, and every part of it back to its own mode afterwards.

    >>> model = nn.Dropout().train()
    >>> with evaluating(model):
    ...     print(model.training)
    False
    >>> model.training
    True
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training

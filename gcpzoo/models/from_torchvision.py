"""Backbones from torchvision's classification networks."""

from __future__ import annotations

import contextlib
import functools
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.models.base import TAIL, Backbone


class VisionTransformer(Backbone):
    """torchvision's VisionTransformer without its classifier: tokens ``(B, C, 1 + N, 1)``, the class token first.

    >>> import torch
    >>> from torchvision import models
    >>> net = models.VisionTransformer(8, 4, 1, 2, hidden_dim=6, mlp_dim=6)
    >>> VisionTransformer(net)(torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 6, 5, 1])
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.conv_proj, self.encoder, self.class_token = net.conv_proj, net.encoder, net.class_token
        self.num_prefix_tokens = 1
        self.input_size = net.image_size

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv_proj(x).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], 1)
        encoded: Tensor = self.encoder(tokens)
        return encoded.mT.unsqueeze(3)


@functools.cache
def names() -> list[str]:
    """List torchvision's classification networks.

    >>> names()[:2]
    ['alexnet', 'convnext_base']
    """
    from torchvision import models

    return list(models.list_models(module=models))


def is_known(name: str) -> bool:
    """Say whether torchvision has a classification network of this name.

    >>> is_known("resnet18"), is_known("resnet5")
    (True, False)
    """
    return name in names()


def build(name: str, pretrained: bool | str, until: str | None, arguments: dict[str, Any]) -> Backbone:
    """Build a network of torchvision and keep all stages up to its classifier, or up to ``until``.

    Raises:
        ZooError: if there is no stage ``until``, the constructor refuses its arguments, or weights cannot be fetched.

    >>> build("resnet18", False, "layer1", {})[-1][0].conv1
    Conv2d(64, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    """
    from torchvision import models

    net = _construct(name, pretrained, arguments)
    if isinstance(net, models.VisionTransformer):
        if until:
            raise ZooError(f"{name} cannot be cut: until is for networks of stages")
        return VisionTransformer(net)
    stages = OrderedDict((n, m) for n, m in net.named_children() if n not in TAIL)
    if isinstance(net, models.DenseNet):
        stages["relu"] = nn.ReLU(inplace=True)
    for n, m in stages.items():
        if isinstance(m, nn.ModuleList):
            stages[n] = nn.Sequential(*m)
    keys = {f"{n}.{k}" for n, m in stages.items() for k in m.state_dict()}
    kept = _cut(name, stages, until)
    if isinstance(net, models.SwinTransformer):
        kept["permute"] = net.permute  # from NHWC, also if the network is cut
    backbone = Backbone(kept)
    backbone.dropped_keys = frozenset(keys - set(backbone.state_dict()))
    backbone.input_size = 299 if name == "inception_v3" else 224
    if name in ("googlenet", "inception_v3"):  # what torchvision's transform_input makes of ImageNet's normalization
        backbone.mean = backbone.std = (0.5, 0.5, 0.5)
    return backbone


def _construct(name: str, pretrained: bool | str, arguments: dict[str, Any]) -> nn.Module:
    from torchvision import models

    if name in ("googlenet", "inception_v3"):
        arguments = {"aux_logits": bool(pretrained), "init_weights": False, "transform_input": False, **arguments}
    weights = "DEFAULT" if pretrained is True else pretrained or None
    try:
        # RegNets compute their widths by tensors, which the meta device cannot.
        with torch.device("cpu") if name.startswith("regnet_") else contextlib.nullcontext():
            net: nn.Module = models.get_model(name, weights=weights, **arguments)
    except ZooError:  # too large
        raise
    except OSError as error:  # no network, or a damaged download
        raise ZooError(
            f"the pretrained weights of {name!r} could not be fetched ({error}); give a file with backbone_weights"
        ) from error
    except Exception as error:  # constructors do not check their arguments: any error can come from a wrong one
        reason = str(error).splitlines()[:1] or [type(error).__name__]
        raise ZooError(f"backbone {name!r} refuses its arguments {arguments}: {reason[0]}") from error
    return net


def _cut(name: str, stages: OrderedDict[str, nn.Module], until: str | None) -> OrderedDict[str, nn.Module]:
    """Keep the stages up to and with ``until``, which may name a child of a sequential stage (``features.13``)."""
    if until is None:
        return stages
    stage, _, inner = until.partition(".")
    if stage not in stages or (inner and inner not in dict(stages[stage].named_children())):
        inside = [f"{n}.{c}" for n, m in stages.items() if isinstance(m, nn.Sequential) for c, _ in m.named_children()]
        raise unknown_name(f"stage of {name}", until, [*stages, *inside])
    order = list(stages)
    kept = OrderedDict((n, stages[n]) for n in order[: order.index(stage) + 1])
    if inner:
        children = list(kept[stage].named_children())
        end = [n for n, _ in children].index(inner)
        kept[stage] = nn.Sequential(OrderedDict(children[: end + 1]))
    return kept

"""Backbones from timm, named ``timm:NAME``."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.models.base import Backbone

PREFIX = "timm:"


class TimmBackbone(Backbone):
    """A timm network whose features, NHWC or tokens, are brought to ``(B, C, h, w)`` or ``(B, C, N, 1)``.

    >>> import timm, torch
    >>> net = timm.create_model("test_vit", num_classes=0)
    >>> TimmBackbone(net)(torch.zeros(1, 3, 160, 160)).shape
    torch.Size([1, 64, 101, 1])
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.channels_last = False

    @property
    def network(self) -> nn.Module:
        """timm's network, whose children carry timm's names.

        >>> import timm
        >>> net = timm.create_model("test_vit", num_classes=0)
        >>> TimmBackbone(net).network is net
        True
        """
        net: nn.Module = self.net
        return net

    def forward(self, x: Tensor) -> Tensor:
        y = self.net.forward_features(x) if hasattr(self.net, "forward_features") else self.net(x)[-1]
        if not isinstance(y, Tensor):
            raise ZooError(f"{self.name} gives {type(y).__name__} of features, not one feature map")
        if y.ndim == 3:
            return y.mT.unsqueeze(3)
        return y.permute(0, 3, 1, 2) if self.channels_last else y


@functools.cache
def names() -> list[str]:
    """List timm's networks as ``timm:NAME``.

    >>> "timm:resnet50" in names()
    True
    """
    import timm

    return [PREFIX + name for name in timm.list_models()]


def is_known(name: str) -> bool:
    """Say whether timm has the network ``timm:NAME``; a tag of weights may follow the name.

    >>> is_known("timm:resnet18.a1_in1k"), is_known("timm:resnet5")
    (True, False)
    """
    import timm

    return timm.is_model(name.removeprefix(PREFIX))


def build(name: str, pretrained: bool | str, until: str | None, arguments: dict[str, Any]) -> Backbone:
    """Build a network of timm without its classifier, or cut it after the stage ``until``.

    Raises:
        ZooError: if there is no stage ``until``, or timm cannot make the network.

    >>> build("timm:test_convnext", False, None, {}).input_size
    160
    """
    net = _construct(name, pretrained, until, arguments)
    backbone = TimmBackbone(net)
    has_class_token = getattr(net, "cls_token", None) is not None
    backbone.num_prefix_tokens = getattr(net, "num_prefix_tokens", int(has_class_token))
    known = getattr(net, "pretrained_cfg", None) or {}
    backbone.input_size = known.get("input_size", (3, 224, 224))[-1]
    backbone.mean, backbone.std = tuple(known.get("mean", backbone.mean)), tuple(known.get("std", backbone.std))
    if hasattr(net, "patch_embed") and hasattr(net.patch_embed, "img_size") and net.patch_embed.img_size:
        backbone.input_size = net.patch_embed.img_size[-1]
    return backbone


def _construct(name: str, pretrained: bool | str, until: str | None, arguments: dict[str, Any]) -> Any:
    import timm

    short = name.removeprefix(PREFIX)
    make: Any = timm.create_model
    try:
        if until is None:
            return make(short, pretrained=bool(pretrained), num_classes=0, **arguments)
        whole = make(short, features_only=True, **arguments)
        stages = [info["module"] for info in whole.feature_info.info]
        if until not in stages:
            raise unknown_name(f"stage of {name}", until, stages)
        index = (stages.index(until),)
        return make(short, pretrained=bool(pretrained), features_only=True, out_indices=index, **arguments)
    except ZooError:
        raise
    except Exception as error:  # timm raises plain RuntimeError, TypeError and the Hub's errors
        reason = str(error).splitlines()[:1] or [type(error).__name__]
        raise ZooError(f"timm cannot make {short!r}: {reason[0]}") from error


def is_channels_last(net: Any, features: Tensor) -> bool:
    """Say whether the 4-dimensional features of a timm network are ``(B, h, w, C)``.

    >>> import timm, torch
    >>> is_channels_last(timm.create_model("test_convnext"), torch.zeros(1, 64, 5, 5))
    False
    """
    if features.shape[1] == features.shape[3]:
        return str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")
    cut = hasattr(net, "feature_info") and not hasattr(net, "forward_features")
    channels: int = net.feature_info.channels()[-1] if cut else net.num_features
    return features.shape[3] == channels

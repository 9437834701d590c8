"""The map of every stage of a backbone, for detection, segmentation and whatever else reads several resolutions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gcpzoo.errors import ZooError
from gcpzoo.models.base import Backbone
from gcpzoo.models.from_timm import TimmBackbone
from gcpzoo.models.surgery import evaluating

DROP = 0.75
"""A map with at most this share of the former height begins a stage; convolutions without padding take less."""


class FeatureMaps(nn.Module):
    """A backbone that gives the last map of each resolution, as timm's networks with ``features_only=True`` do.

    Networks of timm give timm's own intermediate maps.

    Args:
        backbone: of any model, trained or not: ``FeatureMaps(gcpzoo.load(NAME).backbone)``.

    Attributes:
        feature_info: for each map its channels (``num_chs``), the pixels that one of its steps stands for
            (``reduction``), and the module that gives it (``module``).

    Raises:
        ZooError: if the backbone has no stages.

    >>> from gcpzoo.models import create_backbone
    >>> maps = FeatureMaps(create_backbone("resnet18"))
    >>> [(info["module"], info["num_chs"], info["reduction"]) for info in maps.feature_info]
    [('relu', 64, 2), ('layer1', 64, 4), ('layer2', 128, 8), ('layer3', 256, 16), ('layer4', 512, 32)]
    >>> [tuple(f.shape) for f in maps(torch.zeros(1, 3, 64, 64))][-1]
    (1, 512, 2, 2)
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_info: list[dict[str, Any]] = []
        if isinstance(backbone, TimmBackbone):
            net: Any = backbone.net
            if not hasattr(net, "forward_intermediates"):
                raise ZooError(f"{backbone.name} has no stages: timm gives none, or until has cut it")
            self.feature_info = [dict(info) for info in net.feature_info]
        else:
            self.feature_info = self._find()

    def channels(self) -> list[int]:
        """List the channels of the maps.

        >>> from gcpzoo.models import create_backbone
        >>> FeatureMaps(create_backbone("resnet18", until="layer2")).channels()
        [64, 64, 128]
        """
        return [info["num_chs"] for info in self.feature_info]

    def forward(self, x: Tensor) -> list[Tensor]:
        if isinstance(self.backbone, TimmBackbone):
            net: Any = self.backbone.net
            found: list[Tensor] = net.forward_intermediates(x, intermediates_only=True)
            return found
        ends = {info["module"] for info in self.feature_info}
        maps = []
        for name, module in _steps(self.backbone):
            x = module(x)
            if name in ends:
                maps.append(x)
        return maps

    @torch.no_grad()
    def _find(self) -> list[dict[str, Any]]:
        """Find the last map of each resolution by a forward pass on the meta device, which computes nothing."""
        backbone, side = self.backbone, self.backbone.input_size
        refusal = ZooError(f"{backbone.name} has no stages: its features are tokens, or not one map after another")
        if type(backbone) is not Backbone or "permute" in dict(backbone.named_children()):
            raise refusal
        sizes: list[tuple[str, int, int]] = []
        with evaluating(backbone):
            x: Any = torch.zeros(1, 3, side, side, device="meta")
            for name, module in _steps(backbone):
                meta = {k: v.to("meta") for k, v in [*module.named_parameters(), *module.named_buffers()]}
                x = torch.func.functional_call(module, meta, x)
                if not isinstance(x, Tensor) or x.ndim != 4:
                    raise refusal
                sizes.append((name, x.shape[1], x.shape[2]))
        following = [*(height for _, _, height in sizes[1:]), 0]
        return [
            {"num_chs": channels, "reduction": round(side / height), "module": name}
            for (name, channels, height), after in zip(sizes, following)
            if after <= DROP * height and height < side
        ]


def _steps(backbone: Backbone) -> Iterator[tuple[str, nn.Module]]:
    """Go through the modules that follow each other, those of a sequence one by one; its last bears its name."""
    for name, child in backbone.named_children():
        if not isinstance(child, nn.Sequential):
            yield name, child
            continue
        inside = list(child.named_children())
        for i, (inner, module) in enumerate(inside):
            yield (f"{name}.{inner}" if i < len(inside) - 1 else name), module

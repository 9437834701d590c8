"""The transformers of DropCov: tokens from dense convolutions, fixed positions, pre-norm blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gcpzoo.errors import ZooError
from gcpzoo.functional.checks import check_count, check_probability
from gcpzoo.models.base import Backbone

SIZES = {
    "sovit_drop_tiny": (240, 12, 4, 2.5),
    "sovit_drop_small": (384, 12, 6, 4.0),
    "sovit_drop_base": (768, 12, 12, 4.0),
    "sovit_drop_14": (384, 14, 6, 3.0),
}
"""Channels, blocks, attention heads, and hidden channels of the MLP in multiples of the channels."""

STEM, GROWTH, LAYERS, STAGES, WIDTH = 64, 16, 6, 3, 128
"""The tokens: channels of the first convolution, growth and layers of a dense stage, stages, channels between them."""

LARGEST = 2_048
"""Largest side of the images: the positions are a table of (side/16)² rows."""


class SoViT(Backbone):
    r"""So-ViT's vision transformer in DropCov's sizes: images to tokens ``(B, C, 1 + N, 1)``, the class token first.

    The image passes a 3×3 convolution of stride 1, a max-pooling by 2, and three dense stages of 6 layers with growth
    16, each with a BatchNorm, a 1×1 convolution to 128 channels and an average pooling by 2 behind it. A 1×1
    convolution makes tokens of the map, 1/16 of the image's side. Positions are added, p counting from the class token:

    .. math:: e_{p,2i} = \sin\bigl(p\,10000^{-2i/C}\bigr),\qquad e_{p,2i+1} = \cos\bigl(p\,10000^{-2i/C}\bigr)

    They are computed, not learned, and not in the state dict.

    Args:
        channels, depth, heads, mlp_ratio: sizes of the transformer, see :data:`SIZES`.
        drop_path_rate: probability with which the last block is skipped in training; it grows linearly from 0 on.
        image_size: side of the images in pixels, a multiple of 16.

    Released code: the transformer of DropCov's ``Deit_drop_Tiny``, ``Deit_drop_Small``, ``Deit_drop_Base`` and
    ``T2T_ViT_14``, none of which has the tokens of DeiT or T2T-ViT. Its BatchNorms behind the stages and its first
    convolution have no ReLU.

    >>> SoViT(8, depth=1, heads=2, mlp_ratio=2, image_size=32)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 8, 5, 1])

    Source: Xie et al., "So-ViT: Mind Visual Tokens for Vision Transformer", arXiv 2104.10935; Wang et al., "DropCov: A
    Simple yet Effective Method for Improving Deep Architectures", NeurIPS 2022.
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {
        "visual_tokens.tokens.stem.0": "tokens.stem",
        "visual_tokens.tokens.stage": "tokens.stages",
        "visual_tokens.tokens.transition": "tokens.projection",
        "cls_token": "cls_token",
        "blocks": "blocks",
        "norm": "norm",
    }
    positions: Tensor

    def __init__(
        self,
        channels: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        drop_path_rate: float = 0.0,
        image_size: int = 224,
    ) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        check_probability("drop_path_rate", drop_path_rate)
        check_count("image_size", image_size, most=LARGEST)
        if image_size % 16:
            raise ZooError(f"image_size must be a multiple of 16, got {image_size}")
        self.input_size, self.num_prefix_tokens = image_size, 1
        self.tokens = _tokens(channels)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.register_buffer("positions", sinusoids(1 + (image_size // 16) ** 2, channels), persistent=False)
        rates = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.Sequential(
            *(Block(channels, heads, mlp_ratio, qkv_bias=False, drop_path=p, norm_layer=nn.LayerNorm) for p in rates)
        )
        self.norm = nn.LayerNorm(channels)
        self._initialize()

    def _initialize(self) -> None:
        """Start the transformer as DeiT does, the convolutions as DenseNet does."""
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        side = self.input_size
        if x.shape[2:] != (side, side):
            raise ZooError(
                f"{self.name or 'SoViT'} expects images of {side}×{side} px, got {x.shape[3]}×{x.shape[2]}: "
                "set backbone_args image_size, or the size of the images"
            )
        tokens = self.tokens(x).flatten(2).mT
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.positions
        encoded: Tensor = self.norm(self.blocks(tokens))
        return encoded.mT.unsqueeze(3)


def sinusoids(n: int, channels: int) -> Tensor:
    """Compute the fixed positions ``(n, channels)``, sines in the even columns and cosines in the odd ones.

    >>> sinusoids(2, 4)
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0100, 0.9999]])
    """
    p = torch.arange(n, dtype=torch.float64)[:, None]
    angles = p * 10000.0 ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :channels].float()


def _tokens(channels: int) -> nn.Sequential:
    """Images ``(B, 3, H, W)`` to a map ``(B, channels, H/16, W/16)``."""
    from timm.models.densenet import DenseBlock, DenseTransition

    stages: list[nn.Module] = []
    width = STEM
    for _ in range(STAGES):
        stages.append(DenseBlock(LAYERS, width, bn_size=2, growth_rate=GROWTH))
        stages.append(DenseTransition(width + LAYERS * GROWTH, WIDTH, norm_layer=nn.BatchNorm2d))
        width = WIDTH
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, STEM, 3, padding=1),
            pool=nn.MaxPool2d(3, stride=2, padding=1),
            stages=nn.Sequential(*stages),
            projection=nn.Conv2d(WIDTH, channels, 1),
        )
    )


def names() -> list[str]:
    """List the networks by name.

    >>> names()
    ['sovit_drop_14', 'sovit_drop_base', 'sovit_drop_small', 'sovit_drop_tiny']
    """
    return sorted(SIZES)


def is_known(name: str) -> bool:
    """Say whether it is one of these networks.

    >>> is_known("sovit_drop_tiny"), is_known("sovit_tiny")
    (True, False)
    """
    return name in SIZES


def build(name: str, pretrained: bool | str, until: str | None, arguments: dict[str, Any]) -> Backbone:
    """Build a network by name.

    Raises:
        ZooError: if it is to be cut or to have weights of its own, or an argument is unknown or cannot work.

    >>> build("sovit_drop_tiny", False, None, {"image_size": 32}).input_size
    32
    """
    if until:
        raise ZooError(f"{name} cannot be cut: until is for networks of stages")
    if pretrained:
        raise ZooError(f"{name} has no pretrained weights of its own: give the backbone_weights of a model of the zoo")
    if unknown := sorted(set(arguments) - {"drop_path_rate", "image_size"}):
        raise ZooError(f"backbone {name!r} has the arguments drop_path_rate and image_size, got {unknown[0]!r}")
    channels, depth, heads, mlp_ratio = SIZES[name]
    return SoViT(channels, depth, heads, mlp_ratio, **arguments)

"""Global second-order pooling inside a network (GSoP)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from gcpzoo.errors import ZooError
from gcpzoo.functional import covariance
from gcpzoo.functional.checks import check_choice, check_count, check_name
from gcpzoo.functional.precision import at_least_float32, without_autocast

ATTENTIONS = ("channel", "position", "average", "maximum", "concatenation")
CENTERINGS = ("released", "exact")
GRID = 8  # rows and columns of the pooled map of the position attention


class _RowConvolution(nn.Module):
    """A symmetric matrix ``(B, n, n)`` to weights ``(B, out, 1, 1)`` in (0, 1).

    Batch normalization of the rows, four kernels of its own for each row, a 1×1 convolution across rows, a sigmoid.
    """

    def __init__(self, n: int, out: int, activation: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(n)
        self.rows = nn.Conv2d(n, 4 * n, (n, 1), groups=n)
        self.mix = nn.Conv2d(4 * n, out, 1)
        self.activation = activation

    def forward(self, a: Tensor) -> Tensor:
        rows: Tensor = self.rows(self.norm(a[..., None]))
        mixed: Tensor = self.mix(F.relu(rows) if self.activation else rows)
        return mixed.sigmoid()


class ChannelAttention(nn.Module):
    r"""Weights of channels ``(B, C, 1, 1)`` from the covariance of reduced channels.

    ReLU → 1×1 convolution to d channels → BN → ReLU → Σ (d×d) → BN over rows → row-wise convolution → 1×1 → sigmoid.

    Args:
        channels: C.
        dim: d.
        stride: of the reducing convolution.

    >>> import torch
    >>> ChannelAttention(64, dim=8).eval()(torch.ones(2, 64, 7, 7)).shape
    torch.Size([2, 64, 1, 1])

    Source: Gao et al., "Global Second-order Pooling Convolutional Networks", CVPR 2019.
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {
        "conv_for_DR": "reduce",
        "bn_for_DR": "norm",
        "row_bn": "weights.norm",
        "row_conv_group": "weights.rows",
        "fc_adapt_channels": "weights.mix",
    }

    def __init__(self, channels: int, dim: int = 128, stride: int = 1) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, dim, 1, stride)
        self.norm = nn.BatchNorm2d(dim)
        self.weights = _RowConvolution(dim, channels, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.norm(self.reduce(F.relu(x))))
        with without_autocast(x):
            a = covariance(at_least_float32(z))
        weights: Tensor = self.weights(a)
        return weights


class PositionAttention(nn.Module):
    r"""Weights of positions ``(B, 1, H, W)`` from the covariance of the positions of an 8×8 pooled map.

    ReLU → 1×1 convolution to d channels → BN → average pooling to 8×8 → A (64×64) → BN over rows → row-wise
    convolution → ReLU → 1×1 → sigmoid → adaptive average pooling to H×W.

    .. math:: A = \tfrac{1}{64}Z^\top Z - s\,(Z^\top\mathbf 1)(Z^\top\mathbf 1)^\top,\qquad Z\in\mathbb R^{d\times64}

    Args:
        channels: C.
        dim: d.
        centering: ``"released"``: s = 1/64², as in the released code, which divides by the number of positions instead
            of channels and so centers only for d = 64; ``"exact"``: s = 1/(64 d), centered over channels.

    >>> import torch
    >>> PositionAttention(64, dim=8).eval()(torch.ones(2, 64, 7, 5)).shape
    torch.Size([2, 1, 7, 5])

    Source: Gao et al., "Global Second-order Pooling Convolutional Networks", CVPR 2019.
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {
        "conv_for_DR_spatial": "reduce",
        "bn_for_DR_spatial": "norm",
        "row_bn_for_spatial": "weights.norm",
        "row_conv_group_for_spatial": "weights.rows",
        "fc_adapt_channels_for_spatial": "weights.mix",
    }

    def __init__(self, channels: int, dim: int = 128, centering: str = "released") -> None:
        super().__init__()
        check_choice("centering", centering, CENTERINGS)
        self.centering = centering
        self.reduce = nn.Conv2d(channels, dim, 1)
        self.norm = nn.BatchNorm2d(dim)
        self.weights = _RowConvolution(GRID**2, GRID**2, activation=True)

    def forward(self, x: Tensor) -> Tensor:
        z = F.adaptive_avg_pool2d(self.norm(self.reduce(F.relu(x))), GRID)
        with without_autocast(x):
            z = at_least_float32(z).flatten(2)
            total = z.sum(1, keepdim=True)
            share = 1 / (GRID**2 if self.centering == "released" else z.shape[1])
            a = (z.mT @ z - share * total.mT @ total) / GRID**2
        weights = self.weights(a).reshape(-1, 1, GRID, GRID)
        return F.adaptive_avg_pool2d(weights, (x.shape[2], x.shape[3]))


class GSoP(nn.Module):
    r"""Second-order attention on the residual branch x of a block, before its addition.

    - ``channel``: :math:`x\cdot c(x)`
    - ``position``: :math:`\mathrm{ReLU}(x\cdot p(x))`
    - ``average``: the sum of both; ``maximum``: their element-wise maximum
    - ``concatenation``: :math:`\mathrm{BN}(K_1 * (x\cdot c) + K_2 * \mathrm{ReLU}(x\cdot p))`, grouped convolutions
      along the height

    Args:
        channels: C of x ``(B, C, H, W)``.
        attention: one of the above.
        attention_dim: channels d of the covariances.
        stride: of the channel attention's reduction.
        centering: see :class:`PositionAttention`.

    >>> import torch
    >>> GSoP(64, attention="average", attention_dim=8).eval()(torch.ones(2, 64, 7, 5)).shape
    torch.Size([2, 64, 7, 5])

    Source: Gao et al., "Global Second-order Pooling Convolutional Networks", CVPR 2019.
    """

    RELEASED_NAMES: ClassVar[Mapping[str, str]] = {
        **{theirs: f"channel.{ours}" for theirs, ours in ChannelAttention.RELEASED_NAMES.items()},
        **{theirs: f"position.{ours}" for theirs, ours in PositionAttention.RELEASED_NAMES.items()},
        "dilate_conv_for_concat1": "first",
        "dilate_conv_for_concat2": "second",
        "bn_for_concat": "norm",
    }

    def __init__(
        self,
        channels: int,
        attention: str = "channel",
        attention_dim: int = 128,
        stride: int = 1,
        centering: str = "released",
    ) -> None:
        super().__init__()
        check_name("attention", attention, ATTENTIONS)
        check_count("attention_dim", attention_dim)
        check_choice("centering", centering, CENTERINGS)
        self.attention = attention
        self.channel = None if attention == "position" else ChannelAttention(channels, attention_dim, stride)
        self.position = None if attention == "channel" else PositionAttention(channels, attention_dim, centering)
        if attention == "concatenation":
            groups = max(1, channels // 64)
            while channels % groups:
                groups -= 1
            factor = int(math.log2(32 / groups))
            kernel, padding = (2 * factor + 5, 1), (factor + 2, 0)
            self.first = nn.Conv2d(channels, channels, kernel, padding=padding, groups=groups)
            self.second = nn.Conv2d(channels, channels, kernel, padding=padding, groups=groups)
            self.norm = nn.BatchNorm2d(channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        by_channel = x if self.channel is None else x * self.channel(x)
        if self.position is None:
            return by_channel
        by_position = F.relu(x * self.position(x))
        if self.attention == "position":
            return by_position
        if self.attention == "average":
            return by_channel + by_position
        if self.attention == "maximum":
            return torch.maximum(by_channel, by_position)
        fused: Tensor = self.norm(self.first(by_channel) + self.second(by_position))
        return fused


class GSoPBlock(nn.Module):
    """A residual block of torchvision with :class:`GSoP` before its addition; its parameters keep their names.

    Args:
        block: the block.
        gsop: for as many channels as the block puts out.

    >>> import torch
    >>> block = GSoPBlock(BasicBlock(16, 16), GSoP(16, attention_dim=4)).eval()
    >>> block(torch.ones(1, 16, 7, 7)).shape
    torch.Size([1, 16, 7, 7])
    """

    def __init__(self, block: BasicBlock | Bottleneck, gsop: GSoP) -> None:
        super().__init__()
        self.residual = len([name for name, _ in block.named_children() if name.startswith("conv")])
        self.downsample = None
        for name, module in block.named_children():
            self.add_module(name, module)
        self.gsop = gsop

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for k in range(1, self.residual + 1):
            out = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(out))
            if k < self.residual:
                out = F.relu(out)
        identity = x if self.downsample is None else self.downsample(x)
        return F.relu(self.gsop(out) + identity)


def insert_gsop(
    backbone: nn.Module,
    stages: Sequence[int] = (1, 2, 3, 4),
    attention: str = "channel",
    attention_dim: int = 128,
    centering: str = "released",
) -> nn.Module:
    """Put GSoP into the last block of stages of a torchvision ResNet, in place.

    GSoP-Net1 is all four stages with the head ``gap``; GSoP-Net2 the first three with ``isqrt`` and 3 iterations.

    Args:
        backbone: a module with ``layer1`` … ``layer4`` of torchvision's BasicBlock or Bottleneck.
        stages: numbers of stages, 1 to 4.
        attention, attention_dim, centering: see :class:`GSoP`. The reduction of the channel attention has stride 2 in
            stages of at most 64 planes, which is the first.

    Returns:
        ``backbone``.

    Raises:
        ZooError: no such stage, or another kind of network.

    >>> from torchvision.models import resnet18
    >>> net = insert_gsop(resnet18(), stages=[1, 2])
    >>> [name for name in ("layer1", "layer2", "layer3") if isinstance(getattr(net, name)[-1], GSoPBlock)]
    ['layer1', 'layer2']
    """
    if not stages or len(set(stages)) < len(stages):
        raise ZooError(f"gsop: stages must be different stages among 1, 2, 3, 4, got {list(stages)}")
    for stage in stages:
        layer = getattr(backbone, f"layer{stage}", None)
        if layer is None:
            there = [name for name, _ in backbone.named_children() if name.startswith("layer")]
            raise ZooError(
                f"gsop: the backbone has no stage {stage}, it has {', '.join(there) or 'none (not a ResNet)'}"
            )
        block = layer[-1]
        if not isinstance(block, (BasicBlock, Bottleneck)):
            raise ZooError(f"gsop: the blocks must be those of torchvision's ResNets, got {type(block).__name__}")
        channels = block.bn3.num_features if isinstance(block, Bottleneck) else block.bn2.num_features
        stride = 2 if channels // block.expansion <= 64 else 1
        layer[-1] = GSoPBlock(block, GSoP(channels, attention, attention_dim, stride, centering))
    return backbone

"""Which convolution of a bottleneck has the stride."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import Bottleneck

from gcpzoo.errors import ZooError


def stride_in_first(backbone: nn.Module) -> nn.Module:
    """Move the strides of a torchvision ResNet's bottlenecks from the 3×3 convolution to the first 1×1, in place.

    This is the original network; torchvision's own is known as v1.5. The shapes stay the same.

    Args:
        backbone: a module with torchvision's ``Bottleneck`` blocks.

    Returns:
        ``backbone``.

    Raises:
        ZooError: it has no such block.

    >>> from torchvision.models import resnet50
    >>> block = stride_in_first(resnet50()).layer2[0]
    >>> block.conv1.stride, block.conv2.stride
    ((2, 2), (1, 1))

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1.
    """
    blocks = [module for module in backbone.modules() if isinstance(module, Bottleneck)]
    if not blocks:
        raise ZooError("stride_in_first: the backbone has no bottlenecks of torchvision's ResNets (from resnet50 on)")
    for block in blocks:
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return backbone

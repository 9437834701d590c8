"""Parts inside a network, inserted by configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from gcpzoo.blocks.gsop import GSoP, GSoPBlock, insert_gsop
from gcpzoo.blocks.kalman_norm import KalmanNorm, insert_kalman_norm
from gcpzoo.blocks.stride import stride_in_first
from gcpzoo.blocks.zca_whitening import ZCAWhitening, insert_zca_whitening
from gcpzoo.errors import ZooError
from gcpzoo.functional.checks import check_name

__all__ = [
    "BLOCKS",
    "GSoP",
    "GSoPBlock",
    "KalmanNorm",
    "ZCAWhitening",
    "insert",
    "insert_gsop",
    "insert_kalman_norm",
    "insert_zca_whitening",
    "stride_in_first",
]

BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "gsop": insert_gsop,
    "kalman_norm": insert_kalman_norm,
    "stride_in_first": stride_in_first,
    "zca_whitening": insert_zca_whitening,
}


def insert(backbone: nn.Module, blocks: Mapping[str, Mapping[str, Any] | None]) -> nn.Module:
    """Insert blocks into ``backbone`` in place.

    Args:
        backbone: the network; each block's own function says what it must have.
        blocks: arguments of each block by its name; ``{}`` or ``None``: its defaults.

    Returns:
        ``backbone``.

    Raises:
        ZooError: unknown block or argument, or a network that the block does not fit.

    >>> from torchvision.models import resnet18
    >>> type(insert(resnet18(), {"gsop": {"stages": [1]}}).layer1[-1]).__name__
    'GSoPBlock'
    """
    for name, arguments in blocks.items():
        check_name("block", name, BLOCKS)
        if not isinstance(arguments or {}, Mapping):
            raise ZooError(f"arguments of block {name!r} must be a mapping, got {arguments!r}")
        known = list(inspect.signature(BLOCKS[name]).parameters)[1:]
        for key in arguments or {}:
            check_name(f"argument of block {name!r}", key, known)
        BLOCKS[name](backbone, **(arguments or {}))
    return backbone

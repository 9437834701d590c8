"""Parameters and multiply-adds of a head or a model, counted on the meta device: nothing is computed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# What the counter of torch does not know, in operations (two for a multiply-add): textbook counts of LAPACK's methods.
_FACTORIZATIONS: dict[Any, Callable[[Sequence[int]], int]] = {
    torch.ops.aten._linalg_eigh: lambda shape: 9 * shape.numel() * shape[-1],  # type: ignore[attr-defined]
    torch.ops.aten.linalg_cholesky_ex: lambda shape: shape.numel() * shape[-1] // 3,  # type: ignore[attr-defined]
    torch.ops.aten._linalg_solve_ex: lambda shape: 8 * shape.numel() * shape[-1] // 3,  # type: ignore[attr-defined]
}


def _counter() -> FlopCounterMode:
    def of(count: Callable[[Sequence[int]], int]) -> Callable[..., int]:
        return lambda shape, *args, **kwargs: count(torch.Size(shape))

    return FlopCounterMode(display=False, custom_mapping={op: of(count) for op, count in _FACTORIZATIONS.items()})


def parameters(module: nn.Module) -> int:
    """Number of learnable numbers."""
    return sum(p.numel() for p in module.parameters())


def multiply_adds(module: nn.Module, *shape: int) -> int:
    """Multiply-adds of one forward pass in evaluation mode for an input of this shape.

    Convolutions and matrix products count in full; an eigendecomposition of n×n as 4.5 n³, a Cholesky factorization as
    n³/6, a linear system with n right sides as 4/3 n³; element-wise operations and sums not at all.
    """
    twin = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad(), _counter() as counter:
        twin(torch.empty(shape, device="meta"))
    return counter.get_total_flops() // 2


def model_complexity(model: nn.Module, size: int) -> dict[str, Any]:
    """Parameters and multiply-adds of a :class:`~gcpzoo.models.GCPNet` for one image of ``size`` × ``size`` pixels.

    Returns:
        Plain values: the image, the features before and after the head, and for the whole model and its three parts
        the parameters and multiply-adds.
    """
    net: Any = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad():
        with _counter() as backbone:
            features = net.forward_features(torch.empty(1, 3, size, size, device="meta"))
        with _counter() as head:
            vector = net.forward_head(features, pre_logits=True)
        with _counter() as both:
            net.forward_head(features)
    counts = {
        "backbone": backbone.get_total_flops() // 2,
        "head": head.get_total_flops() // 2,
        "classifier": (both.get_total_flops() - head.get_total_flops()) // 2,
    }
    sizes = {"backbone": parameters(net.backbone), "head": parameters(net.head)}
    sizes["classifier"] = parameters(net) - sum(sizes.values())
    return {
        "image": [size, size],
        "feature_map": list(features.shape[1:]),
        "num_features": vector.shape[1],
        "parameters": {"total": sum(sizes.values()), **sizes},
        "multiply_adds": {"total": sum(counts.values()), **counts},
    }

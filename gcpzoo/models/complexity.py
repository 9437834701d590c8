"""Parameters and multiply-adds of a head or a model, counted on the meta device, which computes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@cache
def lapack_operations() -> dict[Any, Callable[..., int]]:
    """Map LAPACK's methods, which torch's counter does not know, to operation counts (two for a multiply-add).

    The counts are the textbooks': 9 n³ for an eigendecomposition, n³/3 for a Cholesky factorization, 8/3 n³ for a
    linear system with n right sides, each times the number of matrices. The operators' names are private to torch;
    this is the only place that uses them.

    Raises:
        RuntimeError: if this version of torch lacks one of the operators.

    >>> [str(operator) for operator in lapack_operations()]
    ['aten._linalg_eigh', 'aten.linalg_cholesky_ex', 'aten._linalg_solve_ex']
    """
    counts: dict[str, Callable[[torch.Size], int]] = {
        "_linalg_eigh": lambda shape: 9 * shape.numel() * shape[-1],
        "linalg_cholesky_ex": lambda shape: shape.numel() * shape[-1] // 3,
        "_linalg_solve_ex": lambda shape: 8 * shape.numel() * shape[-1] // 3,
    }

    def of(count: Callable[[torch.Size], int]) -> Callable[..., int]:
        return lambda shape, *args, **kwargs: count(torch.Size(shape))

    try:
        return {getattr(torch.ops.aten, name): of(count) for name, count in counts.items()}
    except AttributeError as error:
        raise RuntimeError(f"torch {torch.__version__} lacks an operator that multiply_adds counts: {error}") from error


def _counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping=lapack_operations())


def parameters(module: nn.Module) -> int:
    """Count the learnable numbers of a module.

    >>> parameters(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in module.parameters())


def multiply_adds(module: nn.Module, *shape: int) -> int:
    """Count the multiply-adds of one forward pass in evaluation mode for an input of this shape.

    Convolutions and matrix products count in full; an eigendecomposition of n×n as 4.5 n³, a Cholesky factorization as
    n³/6, a linear system with n right sides as 4/3 n³; element-wise operations and sums not at all.

    >>> multiply_adds(nn.Conv2d(3, 8, kernel_size=5, padding=2), 1, 3, 10, 10) == 3 * 8 * 5**2 * 10**2
    True
    """
    twin = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad(), _counter() as counter:
        twin(torch.empty(shape, device="meta"))
    return _multiply_adds(counter)


def _multiply_adds(counter: FlopCounterMode) -> int:
    return int(counter.get_total_flops()) // 2


def model_complexity(model: nn.Module, size: int) -> dict[str, Any]:
    """Count parameters and multiply-adds of a :class:`~gcpzoo.models.GCPNet` for an image of ``size``×``size`` pixels,
    or for a clip where the head reads clips.

    Returns:
        Plain values: sizes of the image, of the feature map and of the head's vector; parameters and multiply-adds of
        the whole model and of its three parts.

    >>> from gcpzoo.models import create_model
    >>> counts = model_complexity(create_model("resnet18", "isqrt", num_classes=10, dim=16), 64)
    >>> counts["feature_map"], counts["num_features"], counts["multiply_adds"]["classifier"]
    ([512, 4, 4], 136, 1360)
    """
    net: Any = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad():
        with _counter() as backbone:
            features = net.forward_features(torch.empty(net.head.frames, 3, size, size, device="meta"))
        with _counter() as head:
            vector = net.forward_head(features, pre_logits=True)
        with _counter() as both:
            net.forward_head(features)
    counts = {
        "backbone": _multiply_adds(backbone),
        "head": _multiply_adds(head),
        "classifier": _multiply_adds(both) - _multiply_adds(head),
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

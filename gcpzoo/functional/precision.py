"""The arithmetic of the heads: full precision inside mixed-precision training, and what the Triton kernel may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from gcpzoo.errors import ZooError

TRITON_PRECISIONS = ("tf32x3", "bf16x3", "tf32")


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Context in which operations keep the dtype of their inputs, on the device of ``x``.

    >>> import torch
    >>> x = torch.ones(2, 2)
    >>> with torch.autocast("cpu", torch.bfloat16), without_autocast(x):
    ...     (x @ x).dtype
    torch.float32
    """
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)  # "meta" has no autocast


def at_least_float32(x: Tensor) -> Tensor:
    """Convert float16 and bfloat16 to float32; leave float32 and float64 as they are.

    >>> import torch
    >>> at_least_float32(torch.ones(1, dtype=torch.float16)).dtype
    torch.float32
    """
    return x if x.dtype == torch.float64 else x.float()


def hand_written(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Run a backward pass in the precision of its cotangent, and refuse second derivatives.

    PyTorch's ``once_differentiable`` silently drops the second derivative where the loss is linear.

    Raises:
        RuntimeError: when a graph of the backward pass is asked for.

    >>> import torch
    >>> class Double(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return 2 * x
    ...     @staticmethod
    ...     @hand_written
    ...     def backward(ctx, grad):
    ...         return 2 * grad
    >>> x = torch.ones(1, requires_grad=True)
    >>> torch.autograd.grad(Double.apply(x), x)
    (tensor([2.]),)
    >>> torch.autograd.grad(Double.apply(x), x, create_graph=True)
    Traceback (most recent call last):
    ...
    RuntimeError: the covariance heads have no second derivative: call backward without create_graph=True
    """

    @wraps(backward)
    def checked(ctx: Any, *grads: Tensor) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "the covariance heads have no second derivative: call backward without create_graph=True"
            )
        with torch.no_grad(), without_autocast(grads[0]):
            return backward(ctx, *grads)

    return checked


def triton_precision() -> str | None:
    """Read ``GCPZOO_TRITON``: the arithmetic of the Triton kernel, ``None`` where it is not set.

    Raises:
        ZooError: not one of ``tf32x3``, ``bf16x3``, ``tf32``.

    >>> import os
    >>> os.environ["GCPZOO_TRITON"] = "tf32"
    >>> triton_precision()
    'tf32'
    >>> del os.environ["GCPZOO_TRITON"]
    >>> triton_precision() is None
    True
    """
    chosen = os.environ.get("GCPZOO_TRITON") or None
    if chosen is not None and chosen not in TRITON_PRECISIONS:
        raise ZooError(f"unknown precision in GCPZOO_TRITON {chosen!r}; available: {', '.join(TRITON_PRECISIONS)}")
    return chosen

"""Full precision inside mixed-precision training, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Context in which operations keep the dtype of their inputs; the meta device knows no autocast and needs none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()


def hand_written(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass in its cotangent's own precision, of which there is no second derivative.

    PyTorch's ``once_differentiable`` would leave the second derivative out without a word where the loss is linear.
    """

    @wraps(backward)
    def checked(ctx: Any, *grads: Tensor) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError("the covariance heads have no second derivative: backward without create_graph=True")
        with torch.no_grad(), without_autocast(grads[0]):
            return backward(ctx, *grads)

    return checked

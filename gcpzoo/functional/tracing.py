"""Whether the program computes numbers or is being recorded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def is_recorded_by_jit() -> bool:
    """Tell whether ``torch.jit.trace`` is recording.

    >>> is_recorded_by_jit()
    False
    """
    jit: Any = torch.jit  # its functions are not annotated
    return bool(jit.is_tracing())


def is_exported() -> bool:
    """Tell whether an exporter records the program, which then needs operators that other runtimes have.

    >>> is_exported()
    False
    """
    return torch.compiler.is_exporting() or is_recorded_by_jit()


def is_traced(x: Tensor) -> bool:
    """Tell whether ``x`` stands for values to come: the compiler runs, or a tracer has put its own tensor in.

    >>> import torch
    >>> is_traced(torch.ones(2))
    False
    """
    return torch.compiler.is_compiling() or type(x) is not Tensor

"""A bound on what a network may become while it is built, whatever the names of the arguments that make it large."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from gcpzoo.errors import ZooError
from gcpzoo.limits import MODULES, PARAMETERS


@contextmanager
def bounded() -> Iterator[None]:
    """Stop the building of a network that has too many modules, or too many values in its tensors.

    Raises:
        ZooError: as soon as a limit is exceeded, e.g. by a depth of a million in ``backbone_args``.

    >>> from torch import nn
    >>> with bounded():
    ...     net = nn.Sequential(*(nn.ReLU() for _ in range(6_000)))
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: a network must have at most 5,000 modules, got more
    """
    thread = threading.get_ident()
    modules = values = 0

    def count_module(*_: Any) -> None:
        nonlocal modules
        modules += threading.get_ident() == thread
        if modules > MODULES:
            raise ZooError(f"a network must have at most {MODULES:,} modules, got more")

    def count_values(_: Any, name: str, tensor: Any) -> None:
        nonlocal values
        if tensor is not None and threading.get_ident() == thread:
            values += tensor.numel()
        if values > PARAMETERS:
            raise ZooError(f"a network must have at most {PARAMETERS:,} parameters, got more with {name!r}")

    handles = [
        register_module_module_registration_hook(count_module),
        register_module_parameter_registration_hook(count_values),
        register_module_buffer_registration_hook(count_values),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

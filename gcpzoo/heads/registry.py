"""Heads by name: :func:`register` makes one known, :func:`create_head` creates it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.functional.checks import check_name
from gcpzoo.heads.base import Head

REGISTRY: dict[str, type[Head]] = {}


def register(name: str) -> Callable[[type[Head]], type[Head]]:
    """Make a head known by ``name``: a class decorator.

    >>> @register("maximum")
    ... class GlobalMaximum(Head):
    ...     def forward(self, x):
    ...         return self.reduce(x).amax((2, 3))
    >>> head_class("maximum") is GlobalMaximum
    True
    >>> del REGISTRY["maximum"]
    """

    def add(cls: type[Head]) -> type[Head]:
        cls.name = name
        REGISTRY[name] = cls
        return cls

    return add


def head_class(name: str) -> type[Head]:
    """The class of a head.

    Raises:
        ZooError: unknown name, with the nearest ones.

    >>> head_class("gap").__name__
    'GlobalAveragePooling'
    """
    check_name("head", name, REGISTRY)
    return REGISTRY[name]


def head_arguments(name: str) -> dict[str, Any]:
    """The arguments that a head takes beside ``in_features`` and ``dim``, with their defaults.

    >>> head_arguments("gap")
    {'reduction': 'relu', 'groups': 1}
    """
    arguments: dict[str, Any] = {}
    for cls in reversed(head_class(name).__mro__):
        if "__init__" in cls.__dict__ and issubclass(cls, Head):
            for p in inspect.signature(cls).parameters.values():
                if p.kind is not p.VAR_KEYWORD and p.name not in ("in_features", "dim"):
                    arguments[p.name] = p.default
    return arguments


def check_arguments(name: str, keys: Iterable[str]) -> None:
    """Require arguments that the head takes.

    Raises:
        ZooError: unknown head or argument, with the nearest ones.

    >>> check_arguments("isqrt", ["iteration"])
    Traceback (most recent call last):
    ...
    gcpzoo.errors.ZooError: unknown argument of head 'isqrt' 'iteration': did you mean iterations?
    """
    known = head_arguments(name)
    for key in keys:
        check_name(f"argument of head {name!r}", key, known)


def create_head(name: str, in_features: int, dim: int | Sequence[int] | None = None, **kwargs: Any) -> Head:
    """Create a head by name, to be used alone or in a model.

    Args:
        name: one of :func:`list_heads`.
        in_features: channels ``C`` of the feature map ``(B, C, h, w)``.
        dim: channels after the reduction layer; ``None``: no reduction layer.
        kwargs: the head's own arguments, e.g. ``iterations=5``.

    Raises:
        ZooError: unknown head or argument, with the nearest names, or a value that the head refuses.

    >>> import torch
    >>> head = create_head("isqrt", in_features=256, dim=64, iterations=5)
    >>> head(torch.ones(2, 256, 7, 7)).shape
    torch.Size([2, 2080])
    """
    check_arguments(name, kwargs)
    make: Callable[..., Head] = head_class(name)
    try:
        return make(in_features=in_features, dim=dim, **kwargs)
    except TypeError as error:  # a value of a wrong type that no check names
        raise ZooError(f"head {name!r} refuses its arguments {kwargs}: {error}") from error


def list_heads() -> list[str]:
    """Names of all heads, sorted.

    >>> list_heads()[:3]
    ['asinhe', 'bcnn', 'bdc']
    """
    return sorted(REGISTRY)

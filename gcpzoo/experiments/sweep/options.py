"""Options of ``gcpzoo fit`` as a sweep's file gives them: short forms written out, later ones laid over former ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.training.configs import find_config, read_config
from gcpzoo.training.former_names import refuse_former_names

Options = dict[str, Any]
OWNED = {
    ("model", "head"): ("model", "head_args"),
    ("model", "backbone"): ("model", "backbone_args"),
    ("data", "class_path"): ("data", "init_args"),
}
"""Where a name is replaced, the arguments that belonged to the former one go."""


def read_options(given: Any, where: str) -> Options:
    """Write out options: dotted names become groups, a data module's short name and arguments get their full place.

    Args:
        given: a mapping as in the configs of ``gcpzoo fit``, with dotted names where they are shorter; ``config`` names
            a config file, of one's own or of the package, that the other options are laid over.
        where: origin of the options, named in errors.

    Raises:
        ZooError: if it is no mapping, an option is given twice or by a former name, or the config cannot be read.

    >>> read_options({"model.head": "gap", "data": "Digits", "data.val_fraction": 0.1}, "mine.yaml")
    {'model': {'head': 'gap'},
     'data': {'class_path': 'gcpzoo.data.Digits', 'init_args': {'val_fraction': 0.1}}}
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ZooError(f"{where} must be a mapping of options of 'gcpzoo fit', got {given!r}")
    refuse_former_names(given, where=f"{where}: ")
    options: Options = {}
    own = dict(given)
    config = own.pop("config", None)
    for key, value in own.items():
        _put(options, str(key).split("."), value, where)
    if config is not None:
        path = find_config(str(config))
        options = lay_over(read_options(read_config(path), str(path)), options)
    return options


def _put(options: Options, path: list[str], value: Any, where: str) -> None:
    """Set one option, groups and all."""
    if path == ["data"] and isinstance(value, str):
        path = ["data", "class_path"]
    if path[0] == "data" and len(path) > 1 and path[1] not in ("class_path", "init_args"):
        path = ["data", "init_args", *path[1:]]
    if path == ["data", "class_path"] and "." not in str(value):
        value = f"gcpzoo.data.{value}"
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            _put(options, [*path, *str(key).split(".")], inner, where)
        return
    for key in path[:-1]:
        inner = options.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ZooError(f"{where}: {'.'.join(path)} is inside {key}, which is {inner!r} there")
        options = inner
    if path[-1] in options:
        raise ZooError(f"{where}: {'.'.join(path)} must be given once, got it twice")
    options[path[-1]] = value


def lay_over(below: Options, above: Options) -> Options:
    """Merge two sets of options; what is above wins, and a replaced head, backbone or data module takes its own along.

    >>> below = {"model": {"head": "isqrt", "head_args": {"iterations": 3}, "dim": 64}}
    >>> lay_over(below, {"model": {"head": "gap"}})
    {'model': {'head': 'gap', 'dim': 64}}
    """
    below = {key: dict(value) if isinstance(value, dict) else value for key, value in below.items()}
    for (group, key), (_, arguments) in OWNED.items():
        old, new = below.get(group), above.get(group)
        if isinstance(old, dict) and isinstance(new, dict) and key in new and new[key] != old.get(key):
            old.pop(arguments, None)
    return _merge(below, above)


def _merge(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    merged = dict(below)
    for key, value in above.items():
        merged[key] = _merge(below[key], value) if key in below else value
    return merged


def get(options: Options, path: str, default: Any = None) -> Any:
    """Look up an option by its dotted name.

    >>> get({"model": {"head": "gap"}}, "model.head"), get({}, "model.dim", 0)
    ('gap', 0)
    """
    value: Any = options
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return default
        value = value[key]
    return value

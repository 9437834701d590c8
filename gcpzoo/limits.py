"""Limits on what files of others may hold: stated here, once. What is beyond them is refused before it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from gcpzoo.errors import ZooError, short

TEXT_BYTES = 32 * 2**20
"""Length of a config, a record, a ``config.json`` or a ``metrics.json``."""
VALUES = 1_000_000
"""Values in one file, those behind YAML's aliases counted each time they are used."""
LEVELS = 100
"""Mappings and lists inside each other."""
NUMBER_CHARACTERS = 300
"""Length of a number as text."""
WHOLE_NUMBER = 2**64
"""Largest whole number, of either sign."""

UPLOAD_BYTES = 32 * 2**20
"""Length of an image file that somebody sends to a page or server of ours."""

COUNT = 2**20
"""Largest size that an argument of a head or of a part may give, such as ``sketch_dim``; most have lower limits."""
ITERATIONS = 1000
"""Steps of an iteration such as Newton–Schulz."""
CHANNELS = 65_536
"""Channels after a reduction, and neurons of a hidden layer of the classifier."""
LAYERS = 16
"""Entries of ``dim`` and of ``hidden``."""
CLASSES = 1_000_000
MODULES = 5_000
"""Modules of a network; none of timm has 3,000."""
PARAMETERS = 20_000_000_000
"""Values in all tensors of a network; the largest of timm have 7 thousand million."""

RESIZED_PIXELS = 2**26
"""Pixels of an image whose shorter side has been resized; a long thin one grows without end."""
SERVED_PIXELS = 2**22
"""Pixels of an image that a server hands to a network, where the preprocessing leaves them to the image."""


def read_text(path: Path, where: str) -> str:
    """Read a text file in UTF-8, unless it is too long.

    Raises:
        ZooError: if it is longer than the limit; ``where`` names it.
        UnicodeDecodeError: if it is no UTF-8.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "config.json")
    >>> _ = path.write_text("{}")
    >>> read_text(path, "config.json")
    '{}'
    """
    if path.stat().st_size > TEXT_BYTES:
        raise ZooError(f"{where} must be at most {TEXT_BYTES >> 20} MiB, it is larger")
    return path.read_text(encoding="utf-8")


def load_yaml(text: str, where: str, loader: Any = None) -> Any:
    """Read YAML of plain values, within the limits.

    Args:
        text: the file's content.
        where: origin of the text, named in errors.
        loader: a safe loader of PyYAML; by default its fastest.

    Raises:
        ZooError: if it is not YAML, holds anything but plain values, gives a key twice, or is beyond a limit.

    >>> load_yaml("top1: 91.5", "mine.yaml")
    {'top1': 91.5}
    >>> load_yaml("lr: 1\\nlr: 2", "mine.yaml")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: mine.yaml: the key 'lr' is given twice, in lines 1 and 2: leave one out
    >>> load_yaml("[" * 200, "mine.yaml")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: mine.yaml must have at most 100 levels, got more
    """
    loader = loader or getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_yaml(text, where, loader)
        value = yaml.load(text, loader)
    except ZooError:
        raise
    except Exception as error:  # PyYAML's constructors raise ValueError, KeyError, AttributeError … for wrong values
        raise ZooError(f"{where}: not valid YAML: {short(error)}") from None
    check_values(value, where)
    return value


def load_json(text: str, where: str) -> Any:
    """Read JSON, within the limits; ``NaN`` and ``Infinity``, which are not JSON, are refused.

    Raises:
        ZooError: if a number is not finite, or a limit is exceeded.
        ValueError: if it is not JSON.

    >>> load_json('{"top1": 91.5}', "metrics.json")
    {'top1': 91.5}
    >>> load_json("[NaN]", "metrics.json")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: metrics.json must hold finite numbers, got NaN
    """

    def refuse(constant: str) -> NoReturn:
        raise ZooError(f"{where} must hold finite numbers, got {constant}")

    def finite(digits: str) -> float:
        return number if math.isfinite(number := float(digits)) else refuse(digits[:20])

    _check_length(text, where)
    try:
        value = json.loads(text, parse_constant=refuse, parse_float=finite)
    except RecursionError:
        raise ValueError("too many levels") from None
    check_values(value, where)
    return value


def read_yaml(path: Path) -> Any:
    """Read a YAML file, as :func:`read_text` and :func:`load_yaml` do; errors name its path.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "mine.yaml")
    >>> _ = path.write_text("top1: 91.5")
    >>> read_yaml(path)
    {'top1': 91.5}
    """
    return load_yaml(read_text(path, str(path)), str(path))


def read_json(path: Path, where: str = "") -> Any:
    """Read a JSON file, as :func:`read_text` and :func:`load_json` do; errors name ``where``, else its path.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "metrics.json")
    >>> _ = path.write_text('{"top1": 91.5}')
    >>> read_json(path)
    {'top1': 91.5}
    """
    return load_json(read_text(path, where or str(path)), where or str(path))


def check_values(value: Any, where: str) -> None:
    """Refuse too many values, too many levels, and whole numbers that nothing could print.

    What is used several times counts each time, so that a small file cannot stand for an enormous content.

    Raises:
        ZooError: if a limit is exceeded; ``where`` names the file.

    >>> check_values({"seeds": [2**70]}, "config.json")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: config.json must hold whole numbers of at most 2^64, got a larger one
    """
    stack, count = [(value, 0)], 0
    while stack:
        value, level = stack.pop()
        count += 1
        if isinstance(value, int) and abs(value) > WHOLE_NUMBER:
            raise ZooError(f"{where} must hold whole numbers of at most 2^64, got a larger one")
        if isinstance(value, Mapping):
            inside = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            inside = list(value)
        else:
            continue
        _check_counts(count + len(stack) + len(inside), level, where)
        stack += [(item, level + 1) for item in inside]


def _check_yaml(text: str, where: str, loader: Any) -> None:
    """Go through YAML as events, before anything is built: levels, and values with those behind aliases."""
    _check_length(text, where)
    sizes: dict[str, int] = {}  # of what has an anchor
    groups: list[tuple[str | None, int]] = []  # open mappings and lists: anchor, and the count where they began
    keys = _Keys(where)
    count = 0
    for event in yaml.parse(text, loader):
        keys.see(event)
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, start = groups.pop()
            if anchor:
                sizes[anchor] = count - start
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in groups):
                raise ZooError(f"{where} must not contain itself, got the alias *{event.anchor} inside its own anchor")
            count += sizes.get(str(event.anchor), 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            groups.append((event.anchor, count))
        elif isinstance(event, yaml.ScalarEvent) and _is_long_number(event.value):
            raise ZooError(f"{where} must hold numbers of at most {NUMBER_CHARACTERS} characters, got a longer one")
        elif event.anchor:
            sizes[event.anchor] = 1
        count += 1
        _check_counts(count, len(groups), where)


class _Keys:
    """The keys of the mappings that are open: one that is given twice is refused, of which YAML keeps the last."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.open: list[tuple[dict[str, int] | None, list[int]]] = []  # keys with their lines; nodes so far

    def see(self, event: Any) -> None:
        if isinstance(event, yaml.CollectionEndEvent):
            self.open.pop()
            return
        if not isinstance(event, yaml.NodeEvent):
            return
        if self.open:
            lines, nodes = self.open[-1]
            line = event.start_mark.line + 1 if event.start_mark else 0
            if lines is not None and nodes[0] % 2 == 0 and isinstance(event, yaml.ScalarEvent) and event.value != "<<":
                if event.value in lines:
                    raise ZooError(
                        f"{self.where}: the key {event.value[:100]!r} is given twice, in lines {lines[event.value]} "
                        f"and {line}: leave one out"
                    )
                lines[event.value] = line
            nodes[0] += 1
        if isinstance(event, yaml.CollectionStartEvent):
            self.open.append(({} if isinstance(event, yaml.MappingStartEvent) else None, [0]))


def _is_long_number(text: str) -> bool:
    """Whether PyYAML could take long text for a number; it reads 1:30 in base 60, in quadratic time."""
    return len(text) > NUMBER_CHARACTERS and not text.strip("0123456789abcdefABCDEFxo_:+-.")


def _check_length(text: str, where: str) -> None:
    if len(text) > TEXT_BYTES:
        raise ZooError(f"{where} must be at most {TEXT_BYTES >> 20} MiB, got more")


def _check_counts(count: int, level: int, where: str) -> None:
    if count > VALUES:
        raise ZooError(f"{where} must hold at most {VALUES:,} values, aliases counted each time, got more")
    if level > LEVELS:
        raise ZooError(f"{where} must have at most {LEVELS} levels, got more")

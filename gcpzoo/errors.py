"""The one exception for mistakes that a user can fix, and the message for names that do not exist."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

UNEXPECTED = "an unexpected error, which the server's log explains"
"""What somebody far away is told, in place of a traceback."""


class ZooError(ValueError):
    """A mistake that the user can fix; the message says what is wrong and what to do. Exit code 2.

    Control characters in the message, which may quote names of files and classes, are escaped.

    >>> ZooError("cannot read image cat\\n.jpg")
    ZooError('cannot read image cat\\\\n.jpg')
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Escape the characters of a name that would move the cursor, break the line or reverse the text on a terminal.

    >>> print(printable("cat\\x1b[31m\\n"))
    cat\\x1b[31m\\n
    >>> print(printable("Fuß 猫"))
    Fuß 猫
    """
    return "".join(c.encode("unicode_escape").decode() if is_control(c) else c for c in text)


def short(error: BaseException) -> str:
    """Put an error's text on one line of at most 300 characters.

    >>> short(ValueError("first line\\n  second line"))
    'first line second line'
    """
    return " ".join(str(error).split())[:300] or type(error).__name__


def is_control(character: str) -> bool:
    """Say whether a character controls the output, cannot be encoded (a surrogate), or switches the text's direction.

    >>> is_control("\\n"), is_control("\\u202e"), is_control("é")
    (True, True, False)
    """
    direction = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    return direction or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def unknown_name(kind: str, name: str, available: Iterable[str]) -> ZooError:
    """Build the error for a ``name`` that is not among the ``available`` ones.

    Args:
        kind: what the name stands for, e.g. ``head``.
        name: what was given.
        available: all names that would work.

    Returns:
        The error to raise. Its message suggests the nearest names, or lists all of them where they are few.

    >>> unknown_name("head", "isqr", ["gap", "isqrt"])
    ZooError("unknown head 'isqr': did you mean isqrt?")
    >>> unknown_name("fusion", "product", ["sum", "concat"])
    ZooError("unknown fusion 'product'; available: concat, sum")
    """
    names = sorted(set(available))
    near = [n for n in names if n.lower() == name.lower()]
    near = near or difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if not near:  # the start of a long name, or a part of one
        starts = {n[: len(name)]: n for n in reversed(names)}
        near = [starts[s] for s in difflib.get_close_matches(name, starts, n=3, cutoff=0.75)]
        near = near or [n for n in names if name and name.lower() in n.lower()][:3]
    if near:
        hint = f": did you mean {' or '.join(near)}?"
    elif len(names) <= 40:
        hint = f"; available: {', '.join(names) or 'none'}"
    else:
        hint = f"; {len(names)} are available, such as {', '.join(names[:5])}"
    return ZooError(f"unknown {kind} {name!r}{hint}")

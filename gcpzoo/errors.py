"""One error for every mistake a user can mend, and the nearest names to mend it with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(ValueError):
    """Something the user gave is wrong; the message says what, and what to do. The command line exits with 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> ZooError:
    """The error for a ``name`` that is not among ``known``: names the nearest ones, or all when there are few."""
    names = sorted(set(known))
    near = [n for n in names if n.lower() == name.lower()]
    near = near or difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if not near:  # the beginning of a long name, or a part of one
        begins = {n[: len(name)]: n for n in reversed(names)}
        near = [begins[b] for b in difflib.get_close_matches(name, begins, n=3, cutoff=0.75)]
        near = near or [n for n in names if name.lower() in n.lower()][:3]
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif len(names) <= 40:
        hint = f"there is {', '.join(names) or 'none'}"
    else:
        hint = f"there are {len(names)}, such as {', '.join(names[:5])}"
    return ZooError(f"unknown {kind} {name!r}: {hint}")

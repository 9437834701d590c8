"""What commands print: tables in the terminal, and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def new_table(*columns: str, right: Sequence[str] = (), title: str | None = None) -> Any:
    """Make a plain table of rich; the first column never wraps.

    >>> new_table("head", "top-1 %", right=["top-1 %"]).columns[1].justify
    'right'
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if column in right else "left", no_wrap=i == 0 or column in right)
    return table


def new_console(width: int | None = None) -> Any:
    """Make a console that prints text as it is: a name such as ``[b]`` or ``:cat:`` is no markup.

    >>> new_console().print("[b]cat[/b]")
    [b]cat[/b]
    """
    from rich.console import Console

    return Console(width=width, markup=False, emoji=False)


def new_progress(*columns: Any) -> Any:
    """Make a bar of what is done, for a terminal only; it is on stderr and leaves no trace.

    Args:
        columns: further ones of rich, before the time that remains.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *columns, TimeRemainingColumn())
    return Progress(*shown, console=console, transient=True, disable=not console.is_terminal)


def show(content: Any) -> None:
    """Print a table or plain values: in the terminal's width, or in whole lines into a pipe.

    >>> show({"top1": 0.5})
    {'top1': 0.5}
    """
    new_console(None if sys.stdout.isatty() else 200).print(content)


def show_json(content: Any) -> None:
    r"""Print JSON in UTF-8; a byte of a file's name that is not UTF-8 becomes JSON's escape of what Python reads it as.

    >>> show_json(["Fuß", "\udcff"])
    [
      "Fuß",
      "\udcff"
    ]
    """
    text = json.dumps(content, indent=2, ensure_ascii=False)
    print(text.encode("utf-8", "backslashreplace").decode())

"""What ended a command: an error, or the wish to stop it."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then what it was raised from or while handling, back to the first.

    Ctrl-C is found there even where an error of a library's clean-up hides it, as in a progress bar that was
    interrupted while it started its thread.

    >>> try:
    ...     try:
    ...         raise KeyboardInterrupt
    ...     finally:
    ...         raise RuntimeError("cannot join thread before it is started")
    ... except RuntimeError as error:
    ...     [type(cause).__name__ for cause in causes(error)]
    ['RuntimeError', 'KeyboardInterrupt']
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def reader_left(error: BaseException) -> bool:
    """Say whether a command ended because nobody reads its output, as in ``| head``; the exit then flushes nothing.

    >>> reader_left(KeyboardInterrupt())
    False
    """
    if not any(isinstance(cause, BrokenPipeError) for cause in causes(error)):
        return False
    if isinstance(error, SystemExit):  # rich's way out, which leaves nothing to flush
        return True
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if left := any(event & select.POLLERR for _, event in output.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return left

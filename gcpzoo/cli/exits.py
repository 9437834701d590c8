"""What ended a command: an error, or the wish to stop it."""

from __future__ import annotations

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

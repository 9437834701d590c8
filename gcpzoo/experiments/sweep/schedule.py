"""What a sweep does next: searches first, then trainings, as soon as the rates of their cell are known."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from gcpzoo.experiments.sweep.plan import Cell, Run


class Schedule:
    """Searches and trainings, given to several workers; no worker waits while there is something it could do.

    Args:
        searches: cells whose rates are to be searched.
        runs: trainings, in the order of their worth; one of a cell above is given when its search has ended.

    >>> cell = Cell({"head": "gap"}, {}, (0,))
    >>> schedule = Schedule([cell], [run := Run(cell, 0, {})])
    >>> schedule.take() is cell
    True
    >>> schedule.searched(cell)
    >>> schedule.take() is run, schedule.take()
    (True, None)
    """

    def __init__(self, searches: Sequence[Cell], runs: Sequence[Run]) -> None:
        self._searches, self._runs = list(searches), list(runs)
        self._unknown = {cell.name for cell in searches}
        self._changed = threading.Condition()

    def take(self) -> Cell | Run | None:
        """Give what is next, once there is something; nothing where all has been given."""
        with self._changed:
            while self._searches or self._runs:
                if self._searches:
                    return self._searches.pop(0)
                for i, run in enumerate(self._runs):
                    if run.cell.name not in self._unknown:
                        return self._runs.pop(i)
                self._changed.wait()
            return None

    def searched(self, cell: Cell) -> None:
        """Tell that the search of a cell has ended."""
        with self._changed:
            self._unknown.discard(cell.name)
            self._changed.notify_all()

    def close(self) -> None:
        """Give nothing more."""
        with self._changed:
            self._searches.clear()
            self._runs.clear()
            self._changed.notify_all()

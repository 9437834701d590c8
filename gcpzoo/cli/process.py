"""What the command line asks of its process before torch is loaded."""

from __future__ import annotations

import os

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
SPIN_COUNT = "1000"


def set_up_process() -> None:
    """Have OpenMP's threads spin for microseconds at a barrier and then sleep, unless the user has said how they wait.

    While they spin, as long as 15 ms, they keep the core from the thread they wait for as soon as other programs use
    the cores (``benchmarks/busy.py``). The runtime reads the variable when torch is loaded; processes started from
    this one inherit it.

    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, OMP_WAIT_POLICY="active"):
    ...     before = dict(os.environ)
    ...     set_up_process()
    ...     os.environ == before
    True
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT

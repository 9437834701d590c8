"""What the command line asks of its process before torch is loaded."""

from __future__ import annotations

import os

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
SPIN_COUNT = "1000"
SHARE_THREADS = "GCPZOO_SHARE_THREADS"  # gcpzoo.functional.threads, which loads torch


def set_up_process() -> None:
    """Set how OpenMP's threads wait, and share factorizations among threads, where the user has not set it.

    Threads that spin at a barrier, as long as 15 ms, keep the core from the thread they wait for as soon as other
    programs use the cores; these spin for microseconds and then sleep. What it saves: ``benchmarks/busy.py``. The
    runtime reads its variable when torch is loaded; processes started from this one inherit both.

    >>> from unittest.mock import patch
    >>> with patch.dict(os.environ, OMP_WAIT_POLICY="active", GCPZOO_SHARE_THREADS="0"):
    ...     before = dict(os.environ)
    ...     set_up_process()
    ...     os.environ == before
    True
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    os.environ.setdefault(SHARE_THREADS, "1")

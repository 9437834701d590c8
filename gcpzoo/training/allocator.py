"""What the trainer's commands ask of the C library's allocator."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> bool:
    """Have glibc keep the memory of freed tensors for the next ones, instead of giving it back to the system.

    Tensors above 32 MB otherwise come from the system anew at every step, page by page. A training step on a CPU takes
    about 0.9 of the time, at the same peak of memory (ResNet-18 and ResNet-50, ``benchmarks/training_step.py``).

    Returns:
        Whether there is a glibc that took it; other C libraries stay as they are.

    >>> keep_freed_memory() in (True, False)
    True
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))

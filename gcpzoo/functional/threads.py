"""One switch for what reaches outside PyTorch: a batch of factorizations spread over the CPU's threads.

PyTorch factorizes one matrix of a batch after the other, and MKL shares each among its threads: for 128 rows a second
thread saves only a quarter of the time. :func:`factorize_batch` gives each thread a part of the batch instead, which
saves nearly half. For that it

- keeps a pool of Python threads, each computing on one core (made at the first use, again after a fork),
- asks OpenMP to let go of its own threads, which otherwise spin for 15 ms after their work,
- places the pool's threads on different cores once; they may move later.

Importing this module changes nothing. ``GCPZOO_SHARE_THREADS=0`` in the environment or ``share_threads(False)`` turns
all of it off; PyTorch then factorizes the batch alone, with the same result.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier
from typing import Any

import torch
from torch import Tensor

from gcpzoo.functional.tracing import is_recorded_by_jit, is_traced

Factorization = Callable[[Tensor], tuple[Tensor, Tensor]]

SWITCH = "GCPZOO_SHARE_THREADS"
OMP_PAUSE_SOFT = 1  # omp.h
MIN_MULTIPLICATIONS = 3e6  # below, waking the threads costs more than they save


def share_threads(enabled: bool) -> None:
    """Allow or forbid this process to spread factorizations over threads; sets ``GCPZOO_SHARE_THREADS``.

    Child processes inherit the setting. It is on unless the environment says ``0``.

    >>> before = threads_are_shared()
    >>> share_threads(False)
    >>> threads_are_shared()
    False
    >>> share_threads(before)
    """
    os.environ[SWITCH] = "1" if enabled else "0"


def threads_are_shared() -> bool:
    """Tell whether :func:`factorize_batch` may use a pool of threads.

    >>> import os
    >>> threads_are_shared() == (os.environ.get("GCPZOO_SHARE_THREADS") != "0")
    True
    """
    return os.environ.get(SWITCH) != "0"


def factorize_batch(factorize: Factorization, a: Tensor) -> tuple[Tensor, Tensor]:
    """Call ``factorize`` on ``a``, or where that is faster on parts of its batch, one a thread. Not for autograd.

    Args:
        factorize: gives two tensors with the batch in front.
        a: ``(B, n, m)``.

    Returns:
        ``factorize(a)``.

    >>> import torch
    >>> q, r = factorize_batch(lambda a: tuple(torch.linalg.qr(a)), torch.eye(2).expand(4, 2, 2))
    >>> (q @ r)[3]
    tensor([[1., 0.],
            [0., 1.]])
    """
    threads = torch.get_num_threads()
    work = a.shape[0] * a.shape[1] * a.shape[2] * min(a.shape[1:])
    alone = a.device.type != "cpu" or threads == 1 or a.shape[0] == 1 or work < MIN_MULTIPLICATIONS
    alone = alone or is_traced(a) or is_recorded_by_jit() or not threads_are_shared()
    if alone or (pause := _omp_pause()) is None:
        return factorize(a)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(threads))
    if len(cores) < threads:  # this thread is bound to some cores, and those it starts would be too
        return factorize(a)
    inference = torch.is_inference_mode_enabled()

    def part(i: int, a: Tensor) -> tuple[Tensor, Tensor]:
        if len(cores) == threads and hasattr(os, "sched_setaffinity"):  # spread out now, free to move later
            os.sched_setaffinity(0, {cores[i]})
            os.sched_setaffinity(0, cores)
        with torch.inference_mode(inference), torch.set_grad_enabled(False):
            return factorize(a)

    try:
        pool = _pool(threads, os.getpid())
        pause(OMP_PAUSE_SOFT)
        running = [pool.submit(part, i, chunk) for i, chunk in enumerate(a.detach().chunk(threads))]
    except RuntimeError:  # no more threads, or the interpreter is about to end
        return factorize(a)
    parts = [each.result() for each in running]
    return torch.cat([p for p, _ in parts]), torch.cat([q for _, q in parts])


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """``threads`` Python threads, each with PyTorch and MKL on one core; a forked ``process`` makes its own."""
    barrier = Barrier(threads)

    def start() -> None:
        torch.get_num_threads()  # makes PyTorch set up this thread, which would undo the next line if it came later
        torch.set_num_threads(1)
        barrier.wait()

    pool = ThreadPoolExecutor(threads, "gcpzoo")
    try:
        for started in [pool.submit(start) for _ in range(threads)]:
            started.result()
    except BaseException:  # a thread that waits for others would keep the process from ending
        barrier.abort()
        pool.shutdown(wait=False)
        raise
    finally:
        torch.set_num_threads(threads)  # the last line of start also set the default of threads to come
    return pool


@lru_cache(maxsize=1)
def _omp_pause() -> Callable[[int], int] | None:
    """``omp_pause_resource_all`` of OpenMP 5, where the runtime has it."""
    try:
        pause: Any = ctypes.CDLL(None).omp_pause_resource_all
    except (AttributeError, OSError, TypeError):
        return None
    found: Callable[[int], int] = pause
    return found

"""LAPACK's factorizations of a batch of small matrices, shared among the CPU's threads."""

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

Factorization = Callable[[Tensor], tuple[Tensor, Tensor]]

PAUSE_SOFT = 1
WORTHWHILE = 3e6  # multiplications; below, waking the threads costs more than they save


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """``threads`` Python threads in each of which PyTorch and MKL compute on one core."""
    barrier = Barrier(threads)

    def start() -> None:
        torch.get_num_threads()  # has PyTorch set this thread up, which would undo the next line if it came later
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


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


@lru_cache(maxsize=1)
def _pause() -> Callable[[int], int] | None:
    """``omp_pause_resource_all`` of OpenMP 5: its threads, which else spin for 15 ms after their work, are let go."""
    try:
        pause: Any = ctypes.CDLL(None).omp_pause_resource_all
    except (AttributeError, OSError, TypeError):
        return None
    return pause


def _shared(factorize: Factorization, a: Tensor) -> tuple[Tensor, Tensor]:
    """``factorize(a)``, on a CPU with the batch ``(B, n, m)`` in as many parts as PyTorch has threads.

    PyTorch takes one matrix after the other, and MKL shares each among the threads: of two, the second saves a quarter
    of the time for 128 rows. With a part of the batch for each thread it is nearly half.
    """
    threads = torch.get_num_threads()
    work = a.shape[0] * a.shape[1] * a.shape[2] * min(a.shape[1:])
    alone = a.device.type != "cpu" or threads == 1 or a.shape[0] == 1 or work < WORTHWHILE
    traced = type(a) is not Tensor or torch.compiler.is_compiling() or torch.jit.is_tracing()
    if alone or traced or (pause := _pause()) is None:
        return factorize(a)
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(threads))
    if len(cpus) < threads:  # this thread is bound to some cores, and those it starts would be too
        return factorize(a)
    inference = torch.is_inference_mode_enabled()

    def part(i: int, a: Tensor) -> tuple[Tensor, Tensor]:
        if len(cpus) == threads and hasattr(os, "sched_setaffinity"):  # spread at once; later they may move
            os.sched_setaffinity(0, {cpus[i]})
            os.sched_setaffinity(0, cpus)
        with torch.inference_mode(inference), torch.set_grad_enabled(False):
            return factorize(a)

    try:
        pool = _pool(threads)
        pause(PAUSE_SOFT)
        running = [pool.submit(part, i, chunk) for i, chunk in enumerate(a.detach().chunk(threads))]
    except RuntimeError:  # no more threads, or the interpreter is about to end
        return factorize(a)
    parts = [each.result() for each in running]
    return torch.cat([p for p, _ in parts]), torch.cat([q for _, q in parts])


def eigh(a: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues ``(B, n)`` and eigenvectors ``(B, n, n)`` of positive semi-definite matrices.

    A sample that is not finite gets NaN eigenvalues and finite eigenvectors. Not for autograd.
    """
    finite = a.diagonal(dim1=1, dim2=2).sum(1).isfinite()
    w, v = _shared(lambda a: tuple(torch.linalg.eigh(a)), torch.where(finite[:, None, None], a, 0))
    return torch.where(finite[:, None], w, torch.nan), v


def qr(a: Tensor) -> tuple[Tensor, Tensor]:
    """Q ``(B, n, k)`` and R ``(B, k, m)`` with k = min(n, m) of matrices ``(B, n, m)``; not for autograd."""
    return _shared(lambda a: tuple(torch.linalg.qr(a)), a)

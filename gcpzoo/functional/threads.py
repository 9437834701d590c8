"""One switch for a pool of threads over which a batch of factorizations is spread on the CPU.

PyTorch factorizes one matrix of a batch after the other, and MKL shares each among its threads, which wait for each
other many times in one matrix. :func:`factorize_batch` gives each of a pool of Python threads a part of the batch
instead, which is faster, the more so when other programs use the cores (``benchmarks/busy.py``). Each of them computes
on one core; they are made at the first use, again after a fork.

The pool is off unless ``GCPZOO_SHARE_THREADS=1`` is in the environment, as the command line sets it, or
``share_threads(True)`` was called. Without it PyTorch factorizes the batch alone, with the same result.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier

import torch
from torch import Tensor

from gcpzoo.functional.tracing import is_recorded_by_jit, is_traced

Factorization = Callable[[Tensor], tuple[Tensor, Tensor]]

SWITCH = "GCPZOO_SHARE_THREADS"
MIN_MULTIPLICATIONS = 3e6  # below, waking the threads costs more than they save


def share_threads(enabled: bool) -> None:
    """Allow or forbid this process to spread factorizations over threads; sets ``GCPZOO_SHARE_THREADS``.

    Child processes inherit the setting. It is off until the environment or a call turns it on.

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
    >>> threads_are_shared() == (os.environ.get("GCPZOO_SHARE_THREADS") == "1")
    True
    """
    return os.environ.get(SWITCH) == "1"


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
    if alone or is_traced(a) or is_recorded_by_jit() or not threads_are_shared():
        return factorize(a)
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < threads:
        return factorize(a)  # this thread is bound to some cores, and those it starts would be too
    inference = torch.is_inference_mode_enabled()

    def part(a: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(inference), torch.set_grad_enabled(False):
            return factorize(a)

    try:
        pool = _pool(threads, os.getpid())
        running = [pool.submit(part, chunk) for chunk in a.detach().chunk(threads)]
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

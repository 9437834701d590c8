"""Factorizations shared among threads are those of one thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from threading import enumerate as enumerate_threads
from typing import Any

import pytest
import torch
from torch import Tensor

from gcpzoo.functional import lapack, matrix_power, share_threads, threads


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(threads, "MIN_MULTIPLICATIONS", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setenv(threads.SWITCH, "1")
    yield 3
    torch.set_num_threads(before)
    threads._pool.cache_clear()


def symmetric(batch: int = 7, n: int = 20) -> Tensor:
    a = torch.randn(batch, n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return a + a.mT


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 8])
def test_parts_are_put_together_in_order(batch: int) -> None:
    a = symmetric(batch)
    w, v = lapack.eigh(a)
    torch.testing.assert_close(w, torch.linalg.eigvalsh(a))
    torch.testing.assert_close(v * w[:, None] @ v.mT, a)
    x = torch.randn(batch, 9, 5, generator=torch.Generator().manual_seed(1))
    q, r = lapack.qr(x)
    torch.testing.assert_close(q @ r, x)
    assert q.shape == (batch, 9, 5)


def test_the_number_of_threads_stays_as_it_was(three_threads: int) -> None:
    lapack.eigh(symmetric())
    assert torch.get_num_threads() == three_threads
    assert torch.ones(10**6).sum() == 10**6  # the threads that were let go come back
    assert torch.get_num_threads() == three_threads


def test_gradients_and_inference_mode() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 12, 30, generator=g, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(matrix_power, x)
    with torch.inference_mode():
        value = matrix_power(x)
    assert value.is_inference()
    torch.testing.assert_close(value, matrix_power(x))


def test_an_error_of_one_part_reaches_the_caller() -> None:
    a = torch.eye(4).expand(6, 4, 4) * torch.arange(1.0, 7)[:, None, None]

    def only_small(part: Tensor) -> tuple[Tensor, Tensor]:
        if part.max() > 5:
            raise ValueError("too large")
        return part, part

    with pytest.raises(ValueError, match="too large"):
        threads.factorize_batch(only_small, a)
    assert torch.equal(threads.factorize_batch(only_small, a[:5])[0], a[:5])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_sample_that_is_not_finite_leaves_the_others_alone(bad: float) -> None:
    a = symmetric()
    a[3, 0, 0] = bad
    w, v = lapack.eigh(a)
    assert w[3].isnan().all()
    others = [0, 1, 2, 4, 5, 6]
    torch.testing.assert_close((v * w[:, None] @ v.mT)[others], a[others])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_makes_its_own_threads() -> None:
    lapack.eigh(symmetric())
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a task for threads that stayed with the parent would wait for ever
        os._exit(sum(threads._pool(3, os.getpid()).map(abs, [-1, -2])))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3


def test_a_thread_that_is_bound_to_one_core_does_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1}, raising=False)
    started = threads._pool.cache_info().misses
    lapack.eigh(symmetric())
    assert threads._pool.cache_info().misses == started


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_threads_that_cannot_be_started_leave_nothing_behind(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch, three_threads: int
) -> None:
    before = set(enumerate_threads())
    submit, calls = ThreadPoolExecutor.submit, []

    def failing(self: ThreadPoolExecutor, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise error
        return submit(self, *args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", failing)
    a = symmetric()
    if error is RuntimeError:  # no more threads: one does it
        torch.testing.assert_close(lapack.eigh(a)[0], torch.linalg.eigvalsh(a))
    else:
        with pytest.raises(KeyboardInterrupt):
            lapack.eigh(a)
    counted: list[int] = []
    other = Thread(target=lambda: counted.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert counted == [three_threads]
    for _ in range(100):
        if set(enumerate_threads()) <= before:
            break
        time.sleep(0.05)
    assert set(enumerate_threads()) <= before


def test_a_thread_that_outlives_the_main_one_does_it_alone() -> None:
    code = (
        "import os, threading, time, torch; from gcpzoo.functional import lapack, threads\n"
        "threads.MIN_MULTIPLICATIONS = 0\n"
        "torch.set_num_threads(2); threads._pool(2, os.getpid())\n"
        "def late(): time.sleep(0.5); print(lapack.eigh(torch.eye(3).expand(4, 3, 3))[0].sum().item())\n"
        "threading.Thread(target=late).start()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["12.0"], done.stderr


@pytest.mark.parametrize("how", ["function", "environment", "nothing"])
def test_the_threads_are_off_until_one_switch_turns_them_on(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a = symmetric()
    if how == "function":
        share_threads(False)
    elif how == "environment":
        monkeypatch.setenv("GCPZOO_SHARE_THREADS", "0")
    else:
        monkeypatch.delenv("GCPZOO_SHARE_THREADS")
    started = threads._pool.cache_info().misses
    torch.testing.assert_close(lapack.eigh(a)[0], torch.linalg.eigvalsh(a))
    assert threads._pool.cache_info().misses == started
    share_threads(True)
    lapack.eigh(a)
    assert threads._pool.cache_info().misses == started + 1


def test_importing_the_heads_starts_no_thread_and_registers_nothing() -> None:
    code = (
        "import os, threading, torch\n"
        "registered = []; os.register_at_fork = lambda **hooks: registered.append(hooks)\n"
        "before = threading.active_count(), torch.get_num_threads(), dict(os.environ)\n"
        "import gcpzoo.heads\n"
        "assert (threading.active_count(), torch.get_num_threads(), dict(os.environ)) == before\n"
        "print([h for h in registered if any(f.__module__.startswith('gcpzoo') for f in h.values())])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_small_batches_are_factorized_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MIN_MULTIPLICATIONS", 3e6)
    started = threads._pool.cache_info().misses
    lapack.eigh(symmetric(7, 20))
    assert threads._pool.cache_info().misses == started

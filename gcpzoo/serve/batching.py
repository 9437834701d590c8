"""One thread that computes what many ask for at the same time, in batches."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, TypeVar

from gcpzoo.errors import ZooError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class BusyError(ZooError):
    """All places are taken; ``seconds`` says when to ask again.

    >>> BusyError("64 images are waiting", 2).seconds
    2
    """

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


class Places(Generic[Item, Answer]):
    """Places for items, given by :meth:`Batcher.places`.

    >>> batcher = Batcher(lambda numbers: numbers, limit=3)
    >>> with batcher.places() as places:
    ...     places.take(3)
    Traceback (most recent call last):
    gcpzoo.serve.batching.BusyError: too many images at a time: 1 of 3 places are taken; try again in 1 s
    >>> batcher.close()
    """

    def __init__(self, batcher: Batcher[Item, Answer]) -> None:
        self.batcher = batcher
        self.count = self.asked = 0

    def take(self, count: int) -> None:
        """Take so many more.

        Raises:
            BusyError: if not so many are free.
        """
        self.batcher.hold(count)
        self.count += count

    def submit(self, item: Item) -> Future[Answer]:
        """Ask for the answer of an item.

        Raises:
            BusyError: after :meth:`Batcher.close`.
        """
        if self.asked == self.count:
            raise ZooError(f"an item needs a place, got {self.asked + 1} items for {self.count}")
        self.asked += 1
        return self.batcher.enqueue(item)


class Batcher(Generic[Item, Answer]):
    """A queue before one thread, which takes what waits there, up to a batch, and answers in the order of arrival.

    Whoever asks first takes a place (:meth:`places`). An item waits for others at most ``wait`` seconds, and only while
    somebody holds a place whose item has not come. If a batch fails, its items are computed one by one, so that one bad
    item fails alone.

    Args:
        compute: answers a list of items in their order; an answer that is an exception fails its item alone.
        size: items in a batch.
        wait: seconds that the first item of a batch waits for others.
        limit: places.

    Raises:
        ZooError: if a number cannot work.

    >>> batcher = Batcher(lambda numbers: [n * n for n in numbers])
    >>> with batcher.places(2) as places:
    ...     asked = [places.submit(n) for n in (3, 4)]
    ...     [future.result() for future in asked]
    [9, 16]
    >>> batcher.close()
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], Sequence[Answer | Exception]],
        size: int = 16,
        wait: float = 0.005,
        limit: int = 64,
    ) -> None:
        if size < 1:
            raise ZooError(f"batch_size must be at least 1, got {size}")
        if not 0 <= wait <= 60:
            raise ZooError(f"max_wait_ms must be between 0 and 60000, got {1000 * wait:g}")
        if limit < 1:
            raise ZooError(f"max_queue must be at least 1, got {limit}")
        self.compute, self.size, self.wait, self.limit = compute, size, wait, limit
        self.held = self.answered = self.batches = 0
        self._absent = 0  # places whose items have not come
        self._seconds = 0.0  # for an item, lately
        self._waiting: deque[tuple[Item, Future[Answer], float]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="gcpzoo-batches", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread answers."""
        return self._thread.is_alive() and not self._closed

    @contextmanager
    def places(self, count: int = 1) -> Iterator[Places[Item, Answer]]:
        """Hold places for so many items until the block ends.

        Raises:
            BusyError: if not so many are free.
        """
        held = Places(self)
        held.take(count)
        try:
            yield held
        finally:
            with self._changed:
                self.held -= held.count
                self._absent -= held.count - held.asked
                self._changed.notify()

    def hold(self, count: int) -> None:
        """Take places; :class:`Places` gives them back."""
        with self._changed:
            if self.held + count > self.limit:
                seconds = min(60, max(1, math.ceil(self.held * self._seconds)))
                taken = f"{self.held} of {self.limit} places are taken"
                raise BusyError(f"too many images at a time: {taken}; try again in {seconds} s", seconds)
            self.held += count
            self._absent += count

    def enqueue(self, item: Item) -> Future[Answer]:
        """Put an item that has a place into the queue."""
        future: Future[Answer] = Future()
        with self._changed:
            self._absent -= 1
            if self._closed:
                raise BusyError("the server is stopping; try again in 60 s", 60)
            self._waiting.append((item, future, time.monotonic()))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Answer what waits, take nothing more, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            start = time.monotonic()
            answers = self._answers([item for item, _ in batch])
            seconds = (time.monotonic() - start) / len(batch)
            self._seconds = seconds if not self.batches else 0.8 * self._seconds + 0.2 * seconds
            self.batches += 1
            self.answered += len(batch)
            for (_, future), answer in zip(batch, answers):
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _next(self) -> list[tuple[Item, Future[Answer]]]:
        """Wait for a batch; it is empty after the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return []
                until = self._waiting[0][2] + self.wait
                while not self._complete() and (left := until - time.monotonic()) > 0:
                    self._changed.wait(left)
                taken = [self._waiting.popleft() for _ in range(min(self.size, len(self._waiting)))]
                batch = [(item, future) for item, future, _ in taken if future.set_running_or_notify_cancel()]
                if batch:  # else everybody who asked has gone
                    return batch

    def _complete(self) -> bool:
        """Whether the batch is full, or nobody is left to wait for."""
        return len(self._waiting) >= self.size or not self._absent or self._closed

    def _answers(self, items: list[Item]) -> Sequence[Answer | Exception]:
        try:
            answers = self.compute(items)
            if len(answers) != len(items):
                raise RuntimeError(f"{len(items)} items got {len(answers)} answers")
            return answers
        except Exception as error:
            return [error] if len(items) == 1 else [self._answers([item])[0] for item in items]

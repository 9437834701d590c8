"""Many who ask at the same time, one thread that answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gcpzoo.errors import ZooError
from gcpzoo.serve.batching import Batcher, BusyError


class Slow:
    """Doubles numbers, when the gate is open; refuses 13 with its whole batch, and 7 alone."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, numbers: list[int]) -> list[Any]:
        assert self.gate.wait(10)
        self.batches.append(numbers)
        if 13 in numbers:
            raise RuntimeError("unlucky")
        return [ValueError("seven") if n == 7 else 2 * n for n in numbers]


@contextmanager
def at_work(compute: Any, **options: Any) -> Iterator[Batcher]:
    batcher: Batcher = Batcher(compute, **options)
    try:
        yield batcher
    finally:
        batcher.close()


def test_what_waits_is_computed_in_batches_in_the_order_of_arrival() -> None:
    slow = Slow()
    with at_work(slow, size=4, wait=10, limit=20) as batcher, batcher.places(10) as places:
        futures = [places.submit(n) for n in range(20, 30)]
        slow.gate.set()
        assert [future.result(10) for future in futures] == [2 * n for n in range(20, 30)]
    assert [len(batch) for batch in slow.batches] == [4, 4, 2]
    assert [n for batch in slow.batches for n in batch] == list(range(20, 30))
    assert (batcher.answered, batcher.batches) == (10, 3)


def test_an_item_does_not_wait_when_nobody_else_holds_a_place() -> None:
    with at_work(lambda numbers: numbers, size=8, wait=30) as batcher, batcher.places(1) as places:
        assert places.submit(1).result(5) == 1


def test_an_item_waits_for_the_places_that_are_held_and_not_longer_than_asked() -> None:
    batches: list[list[int]] = []

    def keep(numbers: list[int]) -> list[int]:
        batches.append(numbers)
        return numbers

    with at_work(keep, size=8, wait=20) as batcher, batcher.places(3) as places:
        first = places.submit(1)
        time.sleep(0.05)
        assert not first.done()
        others = [places.submit(2), places.submit(3)]
        assert [future.result(5) for future in (first, *others)] == [1, 2, 3]
    with at_work(keep, size=8, wait=0.05) as batcher, batcher.places(2) as places:
        assert places.submit(4).result(5) == 4
    assert batches == [[1, 2, 3], [4]]


@pytest.mark.parametrize(("bad", "message"), [(13, "unlucky"), (7, "seven")])
def test_a_bad_item_fails_alone(bad: int, message: str) -> None:
    slow = Slow()
    slow.gate.set()
    with at_work(slow, size=4, wait=10) as batcher, batcher.places(4) as places:
        futures = [places.submit(n) for n in (1, bad, 2, 3)]
        assert isinstance(futures[1].exception(10), RuntimeError | ValueError)
        assert str(futures[1].exception()) == message
        assert [futures[i].result(10) for i in (0, 2, 3)] == [2, 4, 6]


def test_a_wrong_number_of_answers_is_an_error_and_no_answer() -> None:
    with at_work(lambda numbers: [0], size=2, wait=10) as batcher, batcher.places(2) as places:
        futures = [places.submit(n) for n in (1, 2)]
        assert [future.exception(10) for future in futures] == [None, None]  # one by one the number is right
    with at_work(lambda numbers: []) as batcher, batcher.places(1) as places:
        assert "1 items got 0 answers" in str(places.submit(1).exception(10))


def test_an_item_without_a_place_is_refused() -> None:
    with at_work(lambda numbers: numbers) as batcher, batcher.places(1) as places:
        assert places.submit(1).result(5) == 1
        with pytest.raises(ZooError, match="2 items for 1"):
            places.submit(2)


def test_who_leaves_without_asking_is_not_waited_for() -> None:
    with at_work(lambda numbers: numbers, wait=30) as batcher, batcher.places(1) as places:
        with batcher.places(3):
            first = places.submit(1)
            time.sleep(0.02)
            assert not first.done()
        assert first.result(5) == 1


def test_who_finds_no_place_is_told_when_to_come_again() -> None:
    with at_work(lambda numbers: numbers, limit=2) as batcher:
        with batcher.places(2), pytest.raises(BusyError, match="2 of 2 places are taken") as caught, batcher.places(1):
            pass
        assert caught.value.seconds >= 1
        with batcher.places(2):
            assert batcher.held == 2
        assert batcher.held == 0


def test_an_item_that_nobody_waits_for_is_not_computed() -> None:
    slow = Slow()
    with at_work(slow, size=1) as batcher, batcher.places(3) as places:
        first = places.submit(1)
        while not first.running():
            time.sleep(0.001)
        left, last = places.submit(2), places.submit(3)
        assert left.cancel()
        slow.gate.set()
        assert last.result(10) == 6
    assert [2] not in slow.batches


def test_the_end_answers_what_waits_and_takes_nothing_more() -> None:
    slow = Slow()
    batcher: Batcher = Batcher(slow, size=1)
    with batcher.places(3) as places:
        futures = [places.submit(n) for n in (1, 2)]
        threading.Timer(0.05, slow.gate.set).start()
        batcher.close()
        assert [future.result(0) for future in futures] == [2, 4]
        assert not batcher.alive
        with pytest.raises(BusyError, match="stopping"):
            places.submit(3)


@pytest.mark.parametrize("options", [{"size": 0}, {"wait": -1.0}, {"wait": float("nan")}, {"limit": 0}])
def test_numbers_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match="must be"):
        Batcher(lambda numbers: numbers, **options)

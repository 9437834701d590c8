"""Run a sweep: several trainings side by side, an interrupted sweep gone on with, the results written as they come."""

from __future__ import annotations

import fcntl
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gcpzoo.data.loading import cores
from gcpzoo.errors import ZooError
from gcpzoo.experiments.sweep.plan import Cell, Plan, Run
from gcpzoo.experiments.sweep.process import State, find_done, read_state, train
from gcpzoo.experiments.sweep.results import write_results
from gcpzoo.experiments.sweep.schedule import Schedule
from gcpzoo.experiments.sweep.search import Searcher
from gcpzoo.hub.run_results import read_report
from gcpzoo.paths import write_text

RUNS, TRIALS = "runs", "trials"
RESULTS, TRIED, ABOUT, LOCK = "results.csv", "trials.csv", "sweep.json", ".lock"


class Progress:
    """How far a sweep is; its display reads it while it runs.

    >>> progress = Progress([Cell({"head": "gap"}, {}, (0, 1))], trials=0, jobs=2)
    >>> progress.total, progress.seconds_left()
    (2, None)
    """

    def __init__(self, cells: Sequence[Cell], trials: int, jobs: int) -> None:
        self.cells, self.trials = list(cells), trials
        self.ended: list[tuple[Run, State, Path]] = []
        self.running: dict[str, tuple[Run, Path, float]] = {}
        self.total = sum(len(cell.seeds) + trials for cell in cells)
        self.jobs = min(jobs, self.total)

    def failed(self) -> list[tuple[Run, State, Path]]:
        """List the trainings that failed."""
        return [entry for entry in self.ended if entry[1].state == "failed"]

    def seconds_left(self) -> float | None:
        """Estimate the time to the end from the trainings that are done and from the epochs of those that run."""
        of_cell: dict[tuple[str, bool], list[float]] = {}
        for run, state, _ in self.ended:
            if state.state == "done":
                of_cell.setdefault((run.cell.name, run.trial is not None), []).append(state.seconds)
        for run, folder, start in list(self.running.values()):
            epochs = read_report(folder).get("fit", {}).get("epochs", 0)
            most = run.options.get("trainer", {}).get("max_epochs") or 10
            if 0 < epochs <= most:
                expected = (time.monotonic() - start) * most / epochs
                of_cell.setdefault((run.cell.name, run.trial is not None), []).append(expected)
        if not of_cell:
            return None
        every = statistics.mean(seconds for values in of_cell.values() for seconds in values)
        ended = {run.name for run, *_ in self.ended}
        left = 0.0
        for cell in self.cells:
            for kind, count in ((False, len(cell.seeds)), (True, self.trials)):
                known = of_cell.get((cell.name, kind))
                each = statistics.mean(known) if known else every
                done = sum(r.cell.name == cell.name and (r.trial is not None) == kind for r, *_ in list(self.ended))
                left += max(0, count - done) * each
        spent = sum(time.monotonic() - start for run, _, start in list(self.running.values()) if run.name not in ended)
        return max(0.0, left - spent) / self.jobs


class Sweep:
    """All trainings of a plan, ``jobs`` of them at a time.

    Each runs in its own process and folder, with its share of the cores as threads. What is done is found by the hash
    of its options; what was stopped goes on from its checkpoint; what failed is tried again.

    Args:
        plan: what to train.
        jobs: trainings at a time.
        extra: further arguments of ``gcpzoo fit`` for all of them.
        changed: called in a thread of the sweep when a training starts (without state) or ends.

    Raises:
        ZooError: if ``jobs`` is not at least 1.

    >>> from gcpzoo.experiments.sweep import read_plan
    >>> Sweep(read_plan("configs/sweep/digits.yaml"), jobs=2).progress.total
    4
    """

    def __init__(
        self,
        plan: Plan,
        jobs: int = 1,
        extra: Sequence[str] = (),
        changed: Callable[[Run, State | None], None] = lambda run, state: None,
    ) -> None:
        if jobs < 1:
            raise ZooError(f"jobs must be at least 1, got {jobs}")
        self.plan, self.jobs, self.extra, self.changed = plan, jobs, list(extra), changed
        share = max(1, cores() // jobs)
        asked = os.environ.get("OMP_NUM_THREADS", "")
        self.threads = min(share, int(asked)) if asked.isdigit() and int(asked) > 0 else share
        self.progress = Progress(plan.cells, plan.search.trials if plan.search else 0, jobs)
        self.chosen: dict[str, dict[str, float]] = {}
        self._stop, self._writing, self._descriptor = threading.Event(), threading.Lock(), -1

    def run(self) -> list[tuple[Run, State, Path]]:
        """Run everything that is not done yet.

        Returns:
            The trainings with their states and folders, those of an earlier start included.

        Raises:
            ZooError: if a sweep runs in this folder already, or a search has no validation images.
        """
        with _locked(self.plan.output) as self._descriptor, ThreadPoolExecutor(self.progress.jobs) as pool:
            write_text(
                self.plan.output / ABOUT, json.dumps({"file": self.plan.path.name, "control": self.plan.control}) + "\n"
            )
            tried, done = (find_done(self.plan.output / kind) for kind in (TRIALS, RUNS))
            self._find_again(tried, done)
            try:
                self._write()
                searches = [cell for cell in self.plan.cells if self.plan.search and cell.name not in self.chosen]
                schedule = Schedule(searches, self.plan.runs())
                workers = [pool.submit(self._work, schedule, tried, done) for _ in range(self.progress.jobs)]
                for worker in as_completed(workers):
                    worker.result()
            except BaseException:
                self._stop.set()
                raise
            finally:
                pool.shutdown()
                self._write()
        return self.progress.ended

    def _find_again(self, tried: dict[str, Path], done: dict[str, Path]) -> None:
        """Find all that is done before anything is written or trained, so that no table ever holds less than before."""
        for cell in self.plan.cells if self.plan.search else ():
            self._search(cell, tried, only_done=True)
        for run in self.plan.runs(self.chosen):
            if run.hash in done and not self._lacks_choice(run):
                self._train(run, RUNS, done)

    def _work(self, schedule: Schedule, tried: dict[str, Path], done: dict[str, Path]) -> None:
        """Search and train until nothing is left, or a worker has failed, which ends the others."""
        try:
            while not self._stop.is_set() and (task := schedule.take()) is not None:
                if isinstance(task, Cell):
                    self._search(task, tried)
                    schedule.searched(task)
                elif not self._lacks_choice(task):
                    self._train(replace(task, chosen=self.chosen.get(task.cell.name, {})), RUNS, done)
        except BaseException:
            self._stop.set()
            raise
        finally:
            if self._stop.is_set():
                schedule.close()

    def _lacks_choice(self, run: Run) -> bool:
        return self.plan.search is not None and run.cell.name not in self.chosen

    def _search(self, cell: Cell, done: dict[str, Path], only_done: bool = False) -> None:
        """Choose the options of a cell by its trials, one after the other; a trial that failed counts for nothing."""
        assert self.plan.search
        searcher = Searcher(cell, self.plan.search)
        for run in searcher:
            if only_done and run.hash not in done:
                return
            state = self._train(run, TRIALS, done)
            if self._stop.is_set():
                return
            searcher.tell(read_report(done.get(run.hash, self.plan.output / TRIALS / run.name)), state)
        if (best := searcher.best()) is not None:
            self.chosen[cell.name] = best

    def _train(self, run: Run, kind: str, done: dict[str, Path]) -> State | None:
        """Train one run, unless it is done."""
        if self._stop.is_set():
            return None
        if (found := done.get(run.hash)) is not None:
            state = read_state(found)
            assert state
            if all(run.name != other.name for other, *_ in self.progress.ended):
                self.progress.ended.append((run, state, found))
            return state
        folder = self.plan.output / kind / run.name
        self.progress.running[run.name] = (run, folder, time.monotonic())
        self.changed(run, None)
        try:
            state = train(run, folder, self.threads, self.extra, self._stop, [self._descriptor])
        except OSError as error:
            raise ZooError(f"no training can begin in {folder}: {error.strerror or error}") from error
        finally:
            del self.progress.running[run.name]
        self.progress.ended.append((run, state, folder))
        self._write()
        self.changed(run, state)
        return state

    def _write(self) -> None:
        """Write the results so far, in the order of the plan."""
        place = {cell.name: i for i, cell in enumerate(self.plan.cells)}
        with self._writing:
            ended = sorted(self.progress.ended, key=lambda e: (place[e[0].cell.name], e[0].trial or 0, e[0].seed))
            write_results(self.plan.output / RESULTS, [(r, f) for r, _, f in ended if r.trial is None])
            if self.plan.search:
                write_results(self.plan.output / TRIED, [(r, f) for r, _, f in ended if r.trial is not None])


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Keep a folder to this sweep and the trainings it starts, which inherit the lock and outlive a killed sweep."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise ZooError(f"the output folder {str(folder)!r} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    except BlockingIOError:
        raise ZooError(
            f"a sweep, or a training that a killed one left behind, still runs in {folder}: wait for it or end it"
        ) from None
    finally:
        os.close(descriptor)

"""Trainings on two processes of which one is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from commands import FIT, Fault, differences, last, run
from kills import random_moment

PAIR = [*FIT, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.workers", "0"]


def killed_pairs(scratch: Path, count: int, seed: int) -> Iterator[Fault]:
    """Kill one of two processes, or both; the other one ends too, and the run goes on exactly."""
    reference = scratch / "pair"
    outcome = run(*PAIR, "--output", reference)
    if outcome.code:
        yield Fault("one of two processes killed", "the run without a fault", outcome.text[-300:])
        return
    rng = random.Random(seed)
    for i in range(count):
        folder = scratch / f"pair-{i}"
        second = i % 2 == 0
        moment = random_moment(folder, rng)

        def stop(process: subprocess.Popen[str], moment=moment, second=second) -> None:
            moment(process)
            if second and (children := _children(process.pid)):
                os.kill(children[-1], signal.SIGKILL)
                for _ in range(1200):
                    if process.poll() is not None:
                        return
                    time.sleep(0.1)

        outcome = run(*PAIR, "--output", folder, "--resume", stop=stop)
        lost = "the other process did not end" if second and outcome.code == -9 and outcome.seconds > 120 else ""
        if second and outcome.code == 0:
            continue  # it had ended before
        again = run(*PAIR, "--output", folder, "--resume", watch=last(folder))
        wrong = differences(reference, folder) if again.code == 0 else [again.text[-300:]]
        lost = lost or (f"differs from the uninterrupted run: {wrong[:3]}" if wrong else "")
        kind = "one of two processes killed" if second else "both processes killed"
        yield Fault(kind, f"after {outcome.seconds:.1f} s", lost, again.restarted)
        shutil.rmtree(folder, ignore_errors=True)


def _children(pid: int) -> list[int]:
    text = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [int(line) for line in text.split()]

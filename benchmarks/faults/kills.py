"""Trainings that are killed, terminated or interrupted at random moments, and then gone on with."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from commands import FIT, Fault, differences, last, run, stamp

Stop = Callable[[subprocess.Popen[str]], None]


def random_moment(folder: Path, rng: random.Random) -> Stop:
    """Choose a moment: some writings of the checkpoint after the start, and up to half a second later; or any time."""
    writings, more = rng.randint(0, 5), rng.uniform(0, 0.5)
    blind = rng.random() < 0.2
    seconds = rng.uniform(0.5, 12)

    def wait(process: subprocess.Popen[str]) -> None:
        begin, before, left = time.monotonic(), stamp(last(folder)), writings
        while process.poll() is None and left and not (blind and time.monotonic() - begin > seconds):
            time.sleep(0.005)
            if (now := stamp(last(folder))) != before:
                before, left = now, left - 1
        time.sleep(more)

    return wait


def inside_writing(folder: Path) -> Stop:
    """Wait until a checkpoint is being written."""

    def wait(process: subprocess.Popen[str]) -> None:
        while process.poll() is None and not list((folder / "checkpoints").glob(".writing-*")):
            time.sleep(0.001)

    return wait


def killed_runs(
    kind: str, sign: int, count: int, reference: Path, scratch: Path, seed: int, per_run: int = 4
) -> list[Fault]:
    """Stop trainings ``count`` times in all, go on until they end, and compare what they left with the reference."""
    rng, faults, number = random.Random(seed), [], 0
    while len(faults) < count:
        if number > 3 * count:
            return [*faults, Fault(kind, "not injected", "the trainings ended without noticing the signal")]
        folder = scratch / f"{kind.split()[0]}-{seed}-{number}"
        number += 1
        shutil.rmtree(folder, ignore_errors=True)
        hit: list[Fault] = []
        for _ in range(min(per_run, count - len(faults))):
            where = inside_writing(folder) if rng.random() < 0.25 else random_moment(folder, rng)
            outcome = run(*FIT, "--output", folder, "--resume", stop=where, sign=sign)
            if outcome.code == 0:  # it was faster
                break
            hit.append(Fault(kind, f"after {outcome.seconds:.1f} s"))
            expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[signal.Signals(sign)]
            early = outcome.code == -sign  # before Python could listen
            if outcome.code != expected and not early:
                hit[-1].lost = f"exit code {outcome.code}: {outcome.text[-300:]!r}"
        outcome = run(*FIT, "--output", folder, "--resume", watch=last(folder))
        wrong = differences(reference, folder) if outcome.code == 0 else [outcome.text[-400:]]
        for fault in hit:
            fault.seconds = outcome.restarted
            fault.lost = fault.lost or (f"differs from the uninterrupted run: {wrong[:3]}" if wrong else "")
        faults += hit
        shutil.rmtree(folder, ignore_errors=True)
    return faults

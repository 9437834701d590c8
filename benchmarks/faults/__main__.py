#!/usr/bin/env python
"""Inject faults into gcpzoo's command line, look at what is lost, and write docs/reliability.md.

Real processes are killed at random moments, disks fill up, files are damaged, options make no sense. Exit code 1 if
anything is lost. ``--share 0.1`` injects a tenth.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from commands import ENVIRONMENT, FIT, Fault, run
from inputs import bad_files, bad_options, damaged_images, dirty_folders, not_finite
from kills import killed_runs
from processes import killed_pairs
from storage import damaged_checkpoints, full_disks

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
FUZZ_CASES = 2100


Task = Callable[[], Iterable[Fault]]


def tasks(reference: Path, scratch: Path, share: float) -> list[tuple[str, Task]]:
    """List what is injected; two of these run side by side."""

    def n(count: int) -> int:
        return max(1, round(share * count))

    def kills(kind: str, sign: int, count: int, seed: int) -> tuple[str, Task]:
        return "kill", lambda: killed_runs(kind, sign, n(count), reference, scratch, seed)

    return [
        *[kills("SIGKILL in a training", signal.SIGKILL, 10, seed) for seed in range(5)],
        *[kills("SIGTERM in a training", signal.SIGTERM, 8, seed) for seed in range(2)],
        kills("Ctrl-C in a training", signal.SIGINT, 8, 0),
        ("disk", lambda: full_disks(reference, scratch)),
        ("checkpoint damaged", lambda: damaged_checkpoints(reference, scratch, n(15), 0)),
        ("pair", lambda: killed_pairs(scratch, n(6), 0)),
        ("images damaged", lambda: damaged_images(scratch, n(60), 0)),
        ("folders", lambda: dirty_folders(scratch)),
        ("options", lambda: bad_options(reference, scratch)),
        ("files", lambda: bad_files(reference, scratch, 0)),
        ("not finite", lambda: not_finite(scratch)),
    ]


def fuzz(share: float) -> Fault:
    cases = max(100, round(share * FUZZ_CASES))
    start = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "tests/faults", "--timeout", "1200", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=ROOT, env={**ENVIRONMENT, "GCPZOO_FUZZ_CASES": str(cases)}, capture_output=True, text=True
    )
    lost = "" if done.returncode == 0 else done.stdout[-500:]
    return Fault("fuzzed files (cases of hypothesis)", str(cases), lost, time.perf_counter() - start)


def table(faults: list[Fault]) -> str:
    lines = [
        "| fault | injected | something lost or wrong | seconds to recover or to answer, median (longest) |",
        "|---|---|---|---|",
    ]
    for kind in dict.fromkeys(fault.kind for fault in faults):
        these = [fault for fault in faults if fault.kind == kind]
        count = int(these[0].what) if kind.startswith("fuzzed") else len(these)
        seconds = [fault.seconds for fault in these if fault.seconds is not None]
        times = f"{statistics.median(seconds):.1f} ({max(seconds):.1f})" if seconds else ""
        bad = sum(bool(fault.lost) for fault in these)
        lines.append(f"| {kind} | {count:,} | {bad or 'nothing'} | {times} |")
    return "\n".join(lines)


def page(results: dict) -> str:
    faults = [Fault(**fault) for fault in results["faults"]]
    lost = [f"- {fault.kind}, {fault.what}: {fault.lost}" for fault in faults if fault.lost]
    injected = sum(not fault.kind.startswith("fuzzed") for fault in faults)
    return f"""# Reliability

Written by `make faults`; do not edit. {injected} faults and the fuzzed files, in {results["minutes"]:.0f} minutes on
{results["hardware"]}; gcpzoo {results["version"]}, torch {results["torch"]}.

{table(faults)}

{chr(10).join(["Lost or wrong:", "", *lost]) if lost else "Nothing was lost."}

- A training is stopped at a random moment: while it starts, in a step, while a checkpoint is written (a quarter of the
  times), in a validation or in the final test. It has random augmentation, MixUp and CutMix, dropout, averaged weights
  and two data workers. A run that is stopped k times counts k. It goes on by the same command with `--resume`, and
  everything that it leaves is compared with an uninterrupted run: weights, averaged weights, optimizer, schedule and
  report must be equal to the last bit, but for the seconds.
- A disk is {results["disk"]}. The command must end with one line, keep what was there, and go on when there is room.
- Damaged checkpoints, images, folders, configs and options must be answered by one line that says what is wrong, with
  exit code 2 (`check-data`: 1), never by a traceback.
- The seconds of trainings are from the restart to the first new checkpoint, the start of Python and torch included.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the faults")
    parser.add_argument("--only", default="", help="part of the name of a group: kill, disk, damaged, pair, …")
    options = parser.parse_args()
    start = time.monotonic()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it, and its children
    scratch = Path(tempfile.mkdtemp(prefix="gcpzoo-faults-"))
    os.chdir(scratch)
    try:
        reference = scratch / "reference"
        outcome = run(*FIT, "--output", reference)
        if outcome.code:
            sys.exit(f"the run without a fault fails:\n{outcome.text}")
        faults: list[Fault] = []
        with ThreadPoolExecutor(2) as pool:
            chosen = [task for name, task in tasks(reference, scratch, options.share) if options.only in name]
            for found in pool.map(lambda task: list(task()), chosen):
                faults += found
                print(table(found).splitlines()[-1], flush=True)
                for fault in found:
                    if fault.lost:
                        print(f"   {fault.what}: {fault.lost}", flush=True)
        if options.only in "fuzz":
            faults.append(fuzz(options.share))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    import torch

    import gcpzoo

    results = {
        "version": gcpzoo.__version__,
        "torch": torch.__version__,
        "hardware": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "disk": "a tmpfs that is too small" if any(f.kind == "disk full" for f in faults) else "a quota (rlimit)",
        "minutes": (time.monotonic() - start) / 60,
        "faults": [vars(fault) for fault in faults],
    }
    if options.share == 1 and not options.only:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        PAGE.write_text(page(results))
    print(table(faults))
    print(f"{sum(bool(f.lost) for f in faults)} of {len(faults)} faults lost something")
    return int(any(fault.lost for fault in faults))


if __name__ == "__main__":
    sys.exit(main())

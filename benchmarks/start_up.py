#!/usr/bin/env python
"""Time what a user waits for: ``gcpzoo list``, ``--help``, and what ``import gcpzoo`` adds to ``import torch``.

Each command runs in a new process, in turns; the import is timed in a process that has imported torch. Writes medians
in milliseconds to results/start_up.csv.
"""

from __future__ import annotations

import csv
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 9
PYTHON = [sys.executable, "-c"]
MAIN = "import sys; from gcpzoo.cli.main import main; sys.exit(main(sys.argv[1:]))"
COMMANDS = {
    "gcpzoo list": [*PYTHON, MAIN, "list"],
    "gcpzoo --help": [*PYTHON, MAIN, "--help"],
}
ADDED = "import time, torch; start = time.perf_counter(); import gcpzoo; print(1000 * (time.perf_counter() - start))"


def milliseconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    added: list[float] = []
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            times[name].append(milliseconds(command))
        added.append(float(subprocess.check_output([*PYTHON, ADDED])))
    medians = {name: statistics.median(values) for name, values in times.items()}
    medians["import gcpzoo after import torch"] = statistics.median(added)
    path = Path(__file__).parent / "results" / "start_up.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "milliseconds"])
        writer.writerows([name, round(value, 1)] for name, value in medians.items())
    for name, value in medians.items():
        print(f"{value:8.1f} ms  {name}")


if __name__ == "__main__":
    main()

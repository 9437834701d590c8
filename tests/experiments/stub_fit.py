"""Stands in for ``gcpzoo fit`` in the tests of sweeps: it takes the same arguments and ends in a moment.

What it does follows from ``model.dim``: 1 ends without having trained, 2 raises, 3 trains until it is stopped.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml


def main() -> None:
    options = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    folder = Path(sys.argv[sys.argv.index("--output") + 1])
    model, data = options["model"], options["data"].get("init_args", {})
    behavior = model.get("dim")
    with (folder / "starts.txt").open("a") as starts:
        starts.write(f"{os.environ['OMP_NUM_THREADS']}\n")
    if behavior == 1:
        sys.exit(0)
    if behavior == 2:
        print("gcpzoo: error: the head broke", file=sys.stderr)
        sys.exit(2)
    rate = model.get("optimizer", {}).get("lr", 0.1)
    accuracy = round(0.9 - abs(rate - 0.01) - 0.01 * options["seed_everything"], 4)
    validation = {"val/top1": accuracy} if data.get("val_fraction") else {}
    history = [{"epoch": 0, "seconds": 1.0, **validation}, {"epoch": 1, "seconds": 2.0, **validation}]
    report = {
        "fit": {"epochs": 2, "history": history, "seconds": 2.0},
        "data": {"val_on_test": data.get("views") == "mirror"},
        "hardware": "a stub",
        "parameters": 10,
        "gcpzoo": "0.2.0",
    }
    if behavior == 3:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        (folder / "metrics.json").write_text(json.dumps(report))
        while not (folder.parents[1] / "go").exists():
            time.sleep(0.02)
    if options.get("evaluate", True):
        report["test"] = {"top1": accuracy - 0.05, "loss": 0.5}
    (folder / "metrics.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()

"""``results.csv``: the results of many trainings in one table, a row for each epoch."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcpzoo.experiments.sweep.plan import ABOUT, Run
from gcpzoo.experiments.sweep.process import read_state
from gcpzoo.hub.run_results import read_report
from gcpzoo.paths import replacing

FIGURES = ("val/top1", "test/top1", "val/loss", "test/loss", "train/loss", "seconds")


def write_results(path: Path, runs: Sequence[tuple[Run, Path]]) -> None:
    """Write the results of trainings, whole or not at all.

    A row is an epoch, counted from 0; ``test/top1`` stands in the row of the final epoch, and only where the training
    is done. A training that failed keeps its rows and its error; without an epoch it has one row.

    Args:
        path: the CSV file.
        runs: the trainings with their folders.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "results.csv"
    >>> write_results(path, [])
    >>> path.read_text()[:43]
    'data,backbone,head,seed,epoch,val/top1,test'
    """
    axes = list(dict.fromkeys(["data", "backbone", "head", *(a for run, _ in runs for a in run.cell.labels)]))
    rows = [row for run, folder in runs for row in _rows(run, folder)]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*axes, "seed", "epoch", *FIGURES, *ABOUT], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _rows(run: Run, folder: Path) -> list[dict[str, Any]]:
    report, state = read_report(folder), read_state(folder)
    about: dict[str, Any] = {
        **run.cell.labels,
        "seed": run.seed,
        "recipe": run.recipe[:12],
        "hash": run.hash[:12],
        "run": folder.name,
    }
    if state:
        about |= {"state": state.state, "error": state.error, "git": state.git}
    about["trial"] = "" if run.trial is None else run.trial
    about["chosen"] = json.dumps(run.chosen) if run.chosen else ""
    about |= {key: report.get(key, "") for key in ("parameters", "hardware", "gcpzoo")}
    rows = []
    for values in report.get("fit", {}).get("history", []):
        figures = {key: values[key] for key in FIGURES if values.get(key) is not None}
        rows.append({**about, "epoch": values["epoch"], **figures})
    if rows and state and state.state == "done" and "test" in report:
        test = report["test"]
        rows[-1] |= {f"test/{key}": test[key] for key in ("top1", "loss") if test.get(key) is not None}
    return rows or [about]

"""Condense the folder of a sweep into docs/evidence: its figures, and what only its predictions can tell."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.experiments.report import Training, collect, compare
from gcpzoo.experiments.sweep.execute import RESULTS, TRIED
from gcpzoo.paths import replacing

EVIDENCE = Path(__file__).parent / "evidence"
TRIALS, DIFFERENCES = ".trials", ".differences"
"""Ends of the names of the tables beside ``NAME.csv``."""
FIGURES = ("head", "control", "seeds", "images", "mean", "low", "high")
"""Columns of ``NAME.differences.csv``; its others are the labels of the comparison."""
PLACE = re.compile(r"(?:(?<=[\s'\"=(:,])|^)(?!//)(?:~|/)[^\s'\",;)]*/(?=[^\s'\",;)/]+)")
"""The folders before a file's name: those of this machine say nothing to a reader."""
Row = Mapping[str, Any]


def gather(source: Path, name: str, folder: Path = EVIDENCE, beside: Sequence[Path] = ()) -> list[Path]:
    """Write ``NAME.csv``, ``NAME.trials.csv`` and ``NAME.differences.csv`` from a sweep, or ``NAME.csv`` from a table.

    The differences are those of every pair of heads over test images, by bootstrap: they need the predictions, which
    are too large to keep.

    Args:
        source: output of ``gcpzoo sweep``, or a table of another command.
        name: of the files.
        folder: to write into.
        beside: outputs of other sweeps on the same data, whose heads are compared with those of this one too.

    Raises:
        ZooError: if there is nothing to gather, or no training is done yet.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ZooError(f"the name must be of small letters, digits, - and _, got {name!r}; give another with --as")
    if source.is_file():
        return [write(folder / f"{name}.csv", *read(source))]
    if not (source / RESULTS).is_file():
        raise ZooError(f"{source} holds no {RESULTS}: give the output of gcpzoo sweep, or a CSV file")
    trainings = collect([source])
    if not any(run.test is not None for run in trainings):
        raise ZooError(f"{source}: no training is done yet, so there is nothing to gather")
    written = [write(folder / f"{name}.csv", *read(source / RESULTS))]
    further = {TRIALS: read(source / TRIED) if (source / TRIED).is_file() else ([], [])}
    further[DIFFERENCES] = differences(trainings, collect([source, *beside]) if beside else trainings)
    for end, (columns, rows) in further.items():
        path = folder / f"{name}{end}.csv"
        if rows:
            written.append(write(path, columns, rows))
        else:
            path.unlink(missing_ok=True)
    return written


def differences(own: Sequence[Training], every: Sequence[Training]) -> tuple[list[str], list[dict[str, Any]]]:
    """Compare a sweep's heads with every other over test images, on the same data, backbone and settings."""
    rows = []
    for control in dict.fromkeys(run.labels["head"] for run in every if run.test is not None):
        for block in compare(every, control):
            base = block.get(control)
            of_sweep = {run.labels["head"] for run in own if run.labels.items() >= block.labels.items()}
            for head in block.heads:
                if base is None or (found := head.over_images) is None or not of_sweep & {head.name, control}:
                    continue
                seeds = sorted({run.seed for run in head.runs} & {run.seed for run in base.runs})
                figures = {"mean": found.mean, "low": found.low, "high": found.high}
                rows.append({
                    **block.labels, "head": head.name, "control": control, "seeds": " ".join(map(str, seeds)),
                    "images": found.n, **{key: f"{value:.6f}" for key, value in figures.items()},
                })  # fmt: skip
    return list(rows[0]) if rows else [], rows


def read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table: its columns and rows, without the folders of the machine that wrote it."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [{key: PLACE.sub("", value or "") for key, value in row.items() if key} for row in reader]
            return list(reader.fieldnames or ()), rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ZooError(f"{path} cannot be read: {error}") from None


def write(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> Path:
    """Write a table, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path

"""Predictions as CSV: one form for image files, for data modules and for the tests of runs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gcpzoo.paths import replacing

COLUMNS = ("path", "class", "description", "probability", "true_class")


def columns_of_files(top: int) -> list[str]:
    """Name the columns of a table of image files: the classes from the likeliest on, and why one could not be read.

    >>> columns_of_files(2)
    ['path', 'class', 'description', 'probability', 'class_2', 'description_2', 'probability_2', 'error']
    """
    names = COLUMNS[1:4]
    more = [f"{name}_{i}" for i in range(2, top + 1) for name in names]
    return ["path", *names, *more, "error"]


def write_table(lines: Iterable[Sequence[Any]], path: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Write predictions as CSV, whole or not at all.

    Args:
        lines: a value for each column; of the usual ones path or number of the image, class id, description,
            probability, and the id of the true class or nothing.
        path: the file.
        columns: their names.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "predictions.csv"
    >>> write_table([("a.png", "n2", "goldfish", "0.7500", "n1")], path)
    >>> path.read_text().splitlines()
    ['path,class,description,probability,true_class', 'a.png,n2,goldfish,0.7500,n1']
    """
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(lines)

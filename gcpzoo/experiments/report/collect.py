"""Trainings to compare, read from results tables and run folders."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.experiments.report.runs import REPORT, read_runs
from gcpzoo.experiments.report.trainings import Training, check_figures
from gcpzoo.experiments.sweep.execute import RESULTS, RUNS
from gcpzoo.experiments.sweep.plan import ABOUT
from gcpzoo.experiments.sweep.results import FIGURES

NEEDED = ("data", "backbone", "head", "seed", "epoch", "val/top1", "test/top1")


def collect(folders: list[Path]) -> list[Training]:
    """Read the trainings of folders.

    Args:
        folders: outputs of sweeps, folders of runs, single runs, and tables such as ``results.csv`` alone.

    Returns:
        The trainings; one that two sweeps share, such as their control, counts once.

    Raises:
        ZooError: if a folder holds no results, or two trainings that are not one are the same cell and seed.

    >>> collect([Path("nowhere")])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: there is no 'nowhere'
    """
    found: list[Training] = []
    plain: list[Path] = []
    for folder in dict.fromkeys(folders):
        if not folder.exists():
            raise ZooError(f"there is no {str(folder)!r}")
        own, runs = list(_read_tables(folder)), list(_find_runs(folder))
        if not own and not runs:
            raise ZooError(
                f"{folder} holds no results: give the output of a sweep, runs of gcpzoo fit, or a results.csv"
            )
        found, plain = found + own, plain + runs
    found += read_runs(plain, apart=bool(found))
    seen: dict[Any, Training] = {}
    for run in found:
        first = seen.setdefault((*sorted(run.labels.items()), run.seed), run)
        if first is not run and not _are_one(first, run):
            name = " · ".join(run.labels.values())
            raise ZooError(f"{name}, seed {run.seed}, is in {first.source} and in {run.source}: leave one of them out")
    return list(seen.values())


def _are_one(one: Training, other: Training) -> bool:
    """Say whether two sweeps have the same training: the same options, and the same accuracy."""
    known = one.about.get("hash") and one.test is not None
    return bool(known and (one.about["hash"], one.test) == (other.about.get("hash"), other.test))


def _read_tables(folder: Path) -> Iterator[Training]:
    """Read a table, that of a sweep, or all tables of a folder."""
    if folder.is_file():
        yield from _read_table(folder)
    elif (folder / RESULTS).is_file():
        yield from _read_table(folder / RESULTS)
    elif not (folder / REPORT).is_file() and not any(folder.glob(f"generation-*/{REPORT}")):
        for table in sorted(folder.glob("*.csv")):
            yield from _read_table(table)


def _find_runs(folder: Path) -> list[Path]:
    """Find the runs that no sweep made: the folder itself, or those in it, where it has no tables."""
    if (folder / RESULTS).is_file() or folder.is_file():
        return []
    if (folder / REPORT).is_file():
        return [folder]
    places = folder.glob(f"generation-*/{REPORT}")
    if not any(folder.glob("*.csv")):
        places = (place for pattern in ("*", "*/generation-*") for place in folder.glob(f"{pattern}/{REPORT}"))
    return sorted(place.parent for place in places)


def _read_table(path: Path) -> Iterator[Training]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark before UTF-8
            reader = csv.DictReader(file)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ZooError(f"{path} cannot be read: {error}") from None
    if missing := [name for name in NEEDED if name not in columns]:
        raise ZooError(f"{path} must have the columns {', '.join(NEEDED)}; it lacks {', '.join(missing)}")
    axes = [name for name in columns if name not in (*FIGURES, *ABOUT, "seed", "epoch")]
    runs: dict[Any, Training] = {}
    for number, row in enumerate(rows, 2):
        try:
            labels, seed, figures = _read_row(row, axes)
        except (ValueError, TypeError) as error:
            raise ZooError(f"{path}, line {number}: {error}") from None
        about = {name: row.get(name) or "" for name in ABOUT}
        folder = path.parent / RUNS / about["run"]
        place = folder if about["run"] and folder.is_dir() else None
        run = runs.setdefault((*labels.values(), seed), Training(labels, seed, [], about, place, str(path)))
        if "epoch" in figures:
            if any(figures["epoch"] == known["epoch"] for known in run.epochs):
                name = " · ".join(labels.values())
                raise ZooError(
                    f"{path}, line {number}: epoch {figures['epoch']:g} of {name}, seed {seed}, stands there twice: "
                    "leave out the rows of one of the trainings"
                )
            run.epochs.append(figures)
    for run in runs.values():
        run.epochs.sort(key=lambda row: row["epoch"])
        yield run


def _read_row(row: Mapping[Any, Any], axes: Sequence[str]) -> tuple[dict[str, str], int, dict[str, float]]:
    """Read the names, the seed and the figures of a row; what no training gives was changed by hand."""
    if None in row or None in row.values():
        raise ValueError("it must have as many cells as the first line")
    figures = {name: float(row[name]) for name in ("epoch", *FIGURES) if row.get(name)}
    check_figures(figures)
    return {axis: row[axis] for axis in axes}, int(row["seed"]), figures

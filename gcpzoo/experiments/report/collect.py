"""Trainings to compare, read from results tables and run folders."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gcpzoo.errors import ZooError
from gcpzoo.experiments.sweep.execute import RESULTS, RUNS
from gcpzoo.experiments.sweep.process import read_report
from gcpzoo.experiments.sweep.results import ABOUT, FIGURES
from gcpzoo.training.predictions import FILE

NEEDED = ("data", "backbone", "head", "seed", "epoch", "val/top1", "test/top1")
SPECTRUM = "spectrum.json"


@dataclass
class Training:
    """One training as results tables have it.

    Attributes:
        labels: ``data``, ``backbone``, ``head`` and further axes.
        epochs: figures of each epoch, by their names in ``results.csv``; what is missing there is missing here.
        about: state, error, hardware and so on, as text.
        folder: of the training; null where only the table is there.

    >>> run = Training({"head": "gap"}, 0, [{"epoch": 0, "val/top1": 0.5}, {"epoch": 1, "test/top1": 0.25}], {})
    >>> run.test, run.curve("val/top1")
    (0.25, [0.5, None])
    """

    labels: dict[str, str]
    seed: int
    epochs: list[dict[str, float]]
    about: dict[str, str]
    folder: Path | None = None
    source: str = ""
    _predictions: Predictions | None = field(default=None, repr=False)

    @property
    def test(self) -> float | None:
        """Top-1 on the test images after the final epoch."""
        return self.epochs[-1].get("test/top1") if self.epochs else None

    def curve(self, name: str) -> list[float | None]:
        """Return a figure of every epoch."""
        return [row.get(name) for row in self.epochs]

    def predictions(self) -> Predictions | None:
        """Read what the network said of every test image, if the folder has it."""
        if self._predictions is None and self.folder is not None and (self.folder / FILE).is_file():
            self._predictions = read_predictions(self.folder / FILE)
        return self._predictions

    def spectrum(self) -> dict[str, list[float]]:
        """Read the spectra that the training left, if any."""
        try:
            found = json.loads((self.folder / SPECTRUM).read_text(encoding="utf-8")) if self.folder else {}
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Predictions:
    """The answers for all test images, in their order.

    >>> Predictions(["a.png"], np.array(["cat"]), np.array(["dog"]), np.array([0.9])).right.tolist()
    [False]
    """

    images: list[str]
    predicted: Any
    true: Any
    confidence: Any

    @property
    def right(self) -> Any:
        """Which images are classified correctly."""
        return self.predicted == self.true

    def same_images(self, other: Predictions) -> bool:
        """Say whether both are about the same images: the same names and classes in the same order."""
        names = ([Path(image).name for image in p.images] for p in (self, other))
        return (
            len(self.true) == len(other.true) and bool((self.true == other.true).all()) and next(names) == next(names)
        )


def read_predictions(path: Path) -> Predictions:
    """Read ``test_predictions.csv``.

    Raises:
        ZooError: if it is not such a file.

    >>> read_predictions(Path("nowhere.csv"))
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: nowhere.csv cannot be read: ...
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = {key: [row[key] for row in rows] for key in ("path", "class", "true_class", "probability")}
        confidence = np.array(columns["probability"], float)
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise ZooError(f"{path} cannot be read: {error}") from None
    return Predictions(columns["path"], np.array(columns["class"]), np.array(columns["true_class"]), confidence)


def collect(folders: list[Path]) -> list[Training]:
    """Read the trainings of folders.

    Args:
        folders: outputs of sweeps, folders of runs, single runs, and tables such as ``results.csv`` alone.

    Raises:
        ZooError: if a folder holds no results, or two trainings are the same cell and seed.

    >>> collect([Path("nowhere")])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: there is no 'nowhere'
    """
    found: list[Training] = []
    for folder in dict.fromkeys(folders):
        if not folder.exists():
            raise ZooError(f"there is no {str(folder)!r}")
        own = list(_collect(folder))
        if not own:
            raise ZooError(
                f"{folder} holds no results: give the output of a sweep, runs of gcpzoo fit, or a results.csv"
            )
        found += own
    seen: dict[Any, Training] = {}
    for run in found:
        key = (*sorted(run.labels.items()), run.seed)
        if key in seen:
            name = " · ".join(run.labels.values())
            raise ZooError(
                f"{name}, seed {run.seed}, is in {seen[key].source} and in {run.source}: leave one of them out"
            )
        seen[key] = run
    return found


def _collect(folder: Path) -> Iterator[Training]:
    if folder.is_file():
        yield from _read_table(folder)
    elif (folder / RESULTS).is_file():
        yield from _read_table(folder / RESULTS)
    elif (folder / "metrics.json").is_file():
        yield _read_run(folder)
    elif tables := sorted(folder.glob("*.csv")):
        for table in tables:
            yield from _read_table(table)
    else:
        for place in sorted(folder.glob("*/metrics.json")):
            yield _read_run(place.parent)


def _read_table(path: Path) -> Iterator[Training]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
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
            labels, seed = {axis: row[axis] for axis in axes}, int(row["seed"])
            figures = {name: float(row[name]) for name in ("epoch", *FIGURES) if row.get(name)}
        except (ValueError, TypeError) as error:
            raise ZooError(f"{path}, line {number}: {error}") from None
        about = {name: row.get(name) or "" for name in ABOUT}
        folder = path.parent / RUNS / about["run"]
        place = folder if about["run"] and folder.is_dir() else None
        run = runs.setdefault((*labels.values(), seed), Training(labels, seed, [], about, place, str(path)))
        if "epoch" in figures:
            run.epochs.append(figures)
    for run in runs.values():
        run.epochs.sort(key=lambda row: row["epoch"])
        yield run


def _read_run(folder: Path) -> Training:
    """Read a run of ``gcpzoo fit`` that no sweep started."""
    report = read_report(folder)
    try:
        model, data = report["model"], report["data"]["data"]
        history, test = report["fit"]["history"], report.get("test", {})
        epochs = [{k: v for k, v in row.items() if k in ("epoch", *FIGURES) and v is not None} for row in history]
    except (KeyError, TypeError):
        raise ZooError(f"{folder}/metrics.json is not the report of 'gcpzoo fit'") from None
    if epochs and isinstance(test, Mapping):
        epochs[-1] |= {f"test/{key}": test[key] for key in ("top1", "loss") if test.get(key) is not None}
    labels = {"data": str(data), "backbone": str(model["backbone"]), "head": str(model["head"])}
    about = {key: str(report.get(key, "")) for key in ("hardware", "gcpzoo", "parameters")}
    return Training(labels, report.get("seed") or 0, epochs, about, folder, str(folder))

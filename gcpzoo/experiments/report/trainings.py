"""Trainings to compare: their figures, and what their networks said of every test image."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gcpzoo.errors import ZooError
from gcpzoo.training.predictions import FILE

SPECTRUM = "spectrum.json"
MOST_APART = 0.005
"""Between the accuracy of a table and that of predictions: rounding decides where two classes are equally likely."""


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

    @property
    def length(self) -> int:
        """Number of epochs, of those too that have no figures."""
        return int(self.epochs[-1].get("epoch", len(self.epochs) - 1)) + 1 if self.epochs else 0

    def curve(self, name: str) -> list[float | None]:
        """Return a figure of every epoch."""
        figures = {int(row.get("epoch", i)): row.get(name) for i, row in enumerate(self.epochs)}
        return [figures.get(epoch) for epoch in range(self.length)]

    def predictions(self) -> Predictions | None:
        """Read what the network said of every test image, if the folder has it.

        Raises:
            ZooError: if the file is damaged, or of another accuracy than the table says.
        """
        if self._predictions is None and self.folder is not None and (self.folder / FILE).is_file():
            self._predictions = read_predictions(self.folder / FILE)
            share = float(self._predictions.right.mean())
            if self.test is not None and abs(share - self.test) > MOST_APART:
                raise ZooError(
                    f"{self.folder / FILE} has {share:.4f} right, {self.source} test/top1 {self.test:.4f}: one of them "
                    "was changed, or is of another training"
                )
        return self._predictions

    def spectrum(self) -> dict[str, list[float]]:
        """Read the spectra that the training left, if any."""
        try:
            found = json.loads((self.folder / SPECTRUM).read_text(encoding="utf-8")) if self.folder else {}
        except (OSError, ValueError):
            return {}
        whole = found.items() if isinstance(found, dict) else ()
        return {kind: values for kind, values in whole if isinstance(values, list) and all(map(_is_finite, values))}


def check_figures(figures: Mapping[str, Any]) -> None:
    """Refuse figures that no training gives.

    Raises:
        ValueError: if one is not a finite number, an accuracy is no share, or an epoch no whole number.

    >>> check_figures({"epoch": 0, "test/top1": 70})
    Traceback (most recent call last):
    ValueError: test/top1 must be a share, from 0 to 1, got 70
    """
    for name, value in figures.items():
        if not _is_finite(value):
            raise ValueError(f"{name} must be a finite number, got {value!r}")
        if name.endswith("top1") and not 0 <= value <= 1:
            raise ValueError(f"{name} must be a share, from 0 to 1, got {value:g}")
    if not (figures.get("epoch", 0) >= 0 and float(figures.get("epoch", 0)).is_integer()):
        raise ValueError(f"epoch must be a whole number of at least 0, got {figures['epoch']:g}")


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
        """Say whether both are about the same images: the same classes, folders and names in the same order."""
        names = ([Path(image).parts[-2:] for image in p.images] for p in (self, other))
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
        if not rows or not ((confidence >= 0) & (confidence <= 1)).all():
            raise ValueError("it must have a row for each test image, with a probability from 0 to 1")
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise ZooError(f"{path} cannot be read: {error}") from None
    return Predictions(columns["path"], np.array(columns["class"]), np.array(columns["true_class"]), confidence)

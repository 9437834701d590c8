"""The analysis kit: every measurement of a trained network by name, each as a table and a figure."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcpzoo.analysis.drawing import figures
from gcpzoo.analysis.measurements.confidence import CALIBRATION
from gcpzoo.analysis.measurements.corruptions import CORRUPTIONS
from gcpzoo.analysis.measurements.gradients import GRADIENTS
from gcpzoo.analysis.measurements.landscape import LANDSCAPE
from gcpzoo.analysis.measurements.root_errors import ROOTS
from gcpzoo.analysis.measurements.sharpness import SHARPNESS
from gcpzoo.analysis.measurements.spectra import CONDITIONING, SPECTRUM
from gcpzoo.analysis.measurements.subject import Measurement, Row, Subject
from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.limits import read_json
from gcpzoo.paths import replacing, write_text

MEASUREMENTS: dict[str, Measurement] = {
    m.name: m for m in (SPECTRUM, CONDITIONING, ROOTS, CALIBRATION, GRADIENTS, LANDSCAPE, SHARPNESS, CORRUPTIONS)
}
"""All measurements, in the order in which they run."""
ABOUT = "about.json"


@dataclass(frozen=True)
class Result:
    """What a measurement gave.

    Attributes:
        measurement: what was measured.
        rows: the table.
        svg: the figure, for a page; without its own colors.

    >>> from gcpzoo.analysis.measurements.subject import Measurement
    >>> Result(Measurement("depth", list, list, "how deep a network is"), [], "").rows
    []
    """

    measurement: Measurement
    rows: list[Row]
    svg: str


def choose(only: Sequence[str] | None = None) -> list[Measurement]:
    """Choose measurements by name; all of them without names.

    Raises:
        ZooError: if a name is unknown.

    >>> choose(["spektrum"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown measurement 'spektrum'...
    """
    for name in only or ():
        if name not in MEASUREMENTS:
            raise unknown_name("measurement", name, MEASUREMENTS)
    return [m for name, m in MEASUREMENTS.items() if only is None or name in only]


def analyze(
    subject: Subject,
    output: str | Path,
    only: Sequence[str] | None = None,
    about: Mapping[str, Any] | None = None,
    tell: Callable[[str], Any] = lambda name: None,
) -> list[Result]:
    """Measure, and write ``NAME.csv`` and ``NAME.svg`` of each measurement when it ends, and ``about.json``.

    Args:
        subject: what is measured.
        output: the folder.
        only: names of the measurements; ``None``: all.
        about: what to keep in ``about.json``.
        tell: is told the name of each measurement before it runs.

    Returns:
        The results; a measurement that does not apply to the network has no rows and writes no file.

    Raises:
        ZooError: if a name is unknown, the data lack what a measurement needs, a file cannot be written, or the folder
            would be left with tables of other networks or images beside these.
        ModuleNotFoundError: if a measurement needs an extra that is not installed; before anything runs.

    >>> from gcpzoo.data import Digits
    >>> from gcpzoo.models import create_model
    >>> subject = Subject("mine", create_model("resnet18", "gap", 10, until="layer1").eval(), Digits())
    >>> analyze(subject, "out", only=["depth"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown measurement 'depth'...
    """
    folder, results = Path(output), []
    chosen = choose(only)
    if folder.exists() and not folder.is_dir():
        raise ZooError(f"output must be a folder, got the file {str(output)!r}")
    for measurement in chosen:
        if measurement.needs and importlib.util.find_spec(measurement.needs) is None:
            text = f"{measurement.name} needs the module {measurement.needs}, or leave it out by --only"
            raise ModuleNotFoundError(text, name=measurement.needs)
    _refuse_strangers(folder, {m.name for m in chosen}, about or {})
    for measurement in chosen:
        tell(measurement.name)
        rows = measurement.run(subject)
        svg = ""
        if rows:
            title = f"{measurement.name}: {', '.join(name for name, _ in subject.networks())}"
            figure = measurement.draw(rows)
            svg = figures.to_svg(figure, title)
            _write_table(folder / f"{measurement.name}.csv", rows)
            write_text(folder / f"{measurement.name}.svg", figures.to_svg(figure, title, alone=True))
        else:  # those of another network, analyzed into the same folder before, would pass for this one's
            for suffix in (".csv", ".svg"):
                (folder / f"{measurement.name}{suffix}").unlink(missing_ok=True)
        results.append(Result(measurement, rows, svg))
    described = {m.name: m.corresponds_to for m in chosen}
    text = json.dumps({**(about or {}), "measurements": described}, indent=2, default=str)
    write_text(folder / ABOUT, text + "\n")
    return results


def _refuse_strangers(folder: Path, chosen: set[str], about: Mapping[str, Any]) -> None:
    """Refuse a folder whose other tables are of other networks or images: ``about.json`` speaks for all of them."""
    left = [name for name in MEASUREMENTS if name not in chosen and (folder / f"{name}.csv").is_file()]
    if not left or not (folder / ABOUT).is_file():
        return
    try:
        former = read_json(folder / ABOUT)
    except ValueError:
        former = {}
    new = json.loads(json.dumps(about, default=str))
    for key in ("models", "data"):
        if former.get(key) != new.get(key):
            raise ZooError(f"{folder} holds {left[0]}.csv of other {key}: give another output, or delete what is there")


def _write_table(path: Path, rows: Sequence[Row]) -> None:
    columns = list(rows[0])
    if any(list(row) != columns for row in rows):
        raise ZooError(f"{path.stem}: all rows must have the columns {', '.join(columns)}")
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)


def _text(value: Any) -> Any:
    """Write floats with six digits, which repeat on other machines; what is not known is empty."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value

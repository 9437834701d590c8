"""Draw the figures of docs/gallery.md with the commands that it names, on scikit-learn's digits; about two minutes.

python docs/make_gallery.py
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from make_outputs import write_digits

from gcpzoo.cli.main import main

GALLERY = Path(__file__).parent / "gallery"
MODEL = "resnet18_isqrt.digits"
MEASUREMENTS = ("spectrum", "roots", "calibration")
DIGIT = "digits/test/3/8.png"


def draw(folder: Path) -> list[Path]:
    """Run the commands in a folder, and give the figures."""
    write_digits(folder)
    commands = (
        ["analyze", MODEL, "--data", "Digits", "--only", ",".join(MEASUREMENTS), "--output", str(folder / "analysis")],
        ["explain", "--model", MODEL, str(folder / DIGIT), "--output", str(folder / "explained")],
    )
    for command in commands:
        if code := main(command):
            raise SystemExit(f"gcpzoo {' '.join(command)} ended with exit code {code}")
    [explained] = (folder / "explained").glob("*.png")
    return [*(folder / "analysis" / f"{name}.svg" for name in MEASUREMENTS), explained]


if __name__ == "__main__":
    GALLERY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        for figure in draw(Path(name)):
            shutil.copyfile(figure, GALLERY / ("explain.png" if figure.suffix == ".png" else figure.name))

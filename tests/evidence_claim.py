"""A made-up claim on a made-up sweep, for the tests of the evidence."""

from __future__ import annotations

import csv
from pathlib import Path

COMMANDS = {
    "pets": "gcpzoo sweep pets.yaml",
    "textures": "gcpzoo sweep textures.yaml",
    "noise": "gcpzoo analyze",
    "roots": "x",
}
CLAIM = {"claim": "More accurate", "source": "a paper", "results": ["pets"], "heads": ["isqrt", "worse", "close"]}
SHARES = {
    "gap": {0: 0.70, 1: 0.71, 2: 0.69},
    "isqrt": {0: 0.90, 1: 0.92, 2: 0.88},
    "worse": {0: 0.50, 1: 0.51, 2: 0.48},
    "close": {0: 0.71, 1: 0.70, 2: 0.69},
}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))

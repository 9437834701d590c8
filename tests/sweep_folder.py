"""Sweeps for the tests: a folder as one leaves it, with figures made up, and trainings that are stubs."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np

BASE = {"model.backbone": "resnet18", "data": "Digits", "data.val_fraction": 0.1}
STUB = (sys.executable, str(Path(__file__).parent / "experiments" / "stub_fit.py"))
"""The command that takes the place of ``gcpzoo fit``."""
CLASSES = ("cat", "dog", "eel")


def write_sweep(
    folder: Path, heads: dict[str, dict[int, float]], images: int = 200, data: str = "pets", epochs: int = 3
) -> Path:
    """Write ``results.csv`` and run folders; ``heads`` gives the share of right test images for each seed."""
    rows = []
    for head, seeds in heads.items():
        for seed, share in seeds.items():
            run = folder / "runs" / f"{data}_{head}_seed{seed}"
            run.mkdir(parents=True)
            right = np.arange(images) < round(share * images)
            write_predictions(run / "test_predictions.csv", right)
            spectrum = {"covariance": [1.0, 0.1, 0.01], "normalized": [1.0, 0.3, 0.1]}
            (run / "spectrum.json").write_text(json.dumps(spectrum))
            about = {"data": data, "backbone": "resnet18", "head": head, "seed": seed, "run": run.name}
            about |= {"state": "done", "hardware": "a machine", "git": "abc123"}
            for epoch in range(epochs):
                value = share * (epoch + 1) / epochs
                row = {**about, "epoch": epoch, "val/top1": round(value, 6), "seconds": 60.0 * (epoch + 1)}
                last = {"test/top1": right.mean(), "test/loss": 0.5} if epoch == epochs - 1 else {}
                rows.append(row | last)
    columns = ["data", "backbone", "head", "seed", "epoch", "val/top1", "test/top1", "test/loss", "seconds", "state",
               "error", "git", "hardware", "run"]  # fmt: skip
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def write_predictions(path: Path, right: np.ndarray) -> None:
    """Write the answers for as many images as ``right`` has; every class in turn."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "class", "description", "probability", "true_class"])
        for i, good in enumerate(right):
            true, answer = CLASSES[i % 3], CLASSES[(i + (not good)) % 3]
            writer.writerow([f"/data/test/{true}/{i}.jpg", answer, answer, "0.9000" if good else "0.6000", true])


def read_results(folder: Path) -> list[dict[str, str]]:
    """Read the rows of ``results.csv``."""
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def count_starts(folder: Path) -> int:
    """Count how often the stub was started for a training."""
    return len((folder / "starts.txt").read_text().split())

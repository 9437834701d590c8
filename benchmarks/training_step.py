#!/usr/bin/env python
"""Time a training step with covariance pooling against the same backbone, at the same strides, with average pooling.

Both models live in one process and take turns. ``ratio`` is the median over the rounds of (time with the head) / (time
with gap), on the wall clock. Writes results/training_step.csv.

    python benchmarks/training_step.py [--threads 2] [--rounds 5] [--precision float32|bfloat16]

The head adds its own time and that of the reduction layer, both in proportion to the batch, and the traffic of the
classifier's weights, gradients and momentum, the same for any batch: 33 million numbers for 1000 classes.
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
from pathlib import Path
from typing import Any

import torch

import gcpzoo
from gcpzoo.analysis.speed import in_turns, median_ratio, training_step
from gcpzoo.functional import share_threads
from gcpzoo.training import OptimizerConfig
from gcpzoo.training.run_report import hardware

CASES = [
    # backbone, pixels, batch, classes, head
    ("resnet50", 224, 32, 1000, "isqrt"),
    ("resnet50", 224, 8, 1000, "isqrt"),
    ("resnet50", 224, 8, 200, "isqrt"),
    ("resnet50", 448, 10, 200, "isqrt"),
    ("resnet50", 224, 8, 200, "mpn_cov"),
    ("resnet18", 224, 32, 1000, "isqrt"),
    ("resnet18", 224, 32, 200, "isqrt"),
]


def measure(case: tuple[str, int, int, int, str], rounds: int, dtype: torch.dtype, device: str) -> dict[str, Any]:
    backbone, pixels, batch, classes, head = case
    x = torch.randn(batch, 3, pixels, pixels, device=device).contiguous(memory_format=torch.channels_last)
    y = torch.randint(classes, (batch,), device=device)
    runs = []
    for name in (head, "gap"):
        model = gcpzoo.create_model(backbone, name, classes, last_stride=1).train().to(device)
        model.backbone.to(memory_format=torch.channels_last)
        optimizer = OptimizerConfig("SGD", lr=1e-3, weight_decay=1e-4).create(model)
        runs.append(training_step(model, x, y, optimizer, dtype))
    seconds, seconds_gap = in_turns(runs, rounds)
    ratio, lower, upper = median_ratio(seconds, seconds_gap)
    return {
        "backbone": backbone, "pixels": pixels, "batch": batch, "classes": classes, "head": head,
        "precision": str(dtype).removeprefix("torch."), "rounds": rounds,
        "seconds": round(statistics.median(seconds), 3),
        "seconds_gap": round(statistics.median(seconds_gap), 3),
        "ratio": round(ratio, 3), "lower_quartile": round(lower, 3), "upper_quartile": round(upper, 3),
        "machine": f"{platform.machine()}, {hardware()}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args()
    share_threads(True)  # as the command line does
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for case in CASES:
        rows.append(measure(case, args.rounds, getattr(torch, args.precision), device))
        print({k: v for k, v in rows[-1].items() if k != "machine"}, flush=True)
    path = Path(__file__).parent / "results" / "training_step.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()

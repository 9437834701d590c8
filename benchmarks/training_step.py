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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gcpzoo
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


def step(model: nn.Module, x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """One training step: forward, backward, optimizer."""
    optimizer = OptimizerConfig("SGD", lr=1e-3, weight_decay=1e-4).create(model)

    def run() -> None:
        with torch.autocast(x.device.type, dtype, enabled=dtype is not torch.float32):
            loss = nn.functional.cross_entropy(model(x).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if x.is_cuda:
            torch.cuda.synchronize()

    return run


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(case: tuple[str, int, int, int, str], rounds: int, dtype: torch.dtype, device: str) -> dict[str, Any]:
    backbone, pixels, batch, classes, head = case
    x = torch.randn(batch, 3, pixels, pixels, device=device).contiguous(memory_format=torch.channels_last)
    y = torch.randint(classes, (batch,), device=device)
    runs = []
    for name in (head, "gap"):
        model = gcpzoo.create_model(backbone, name, classes, last_stride=1).train().to(device)
        model.backbone.to(memory_format=torch.channels_last)
        runs.append(step(model, x, y, dtype))
        runs[-1]()  # the first call allocates
    times = [[seconds(run) for run in runs] for _ in range(rounds)]
    ratios = sorted(a / b for a, b in times)
    return {
        "backbone": backbone, "pixels": pixels, "batch": batch, "classes": classes, "head": head,
        "precision": str(dtype).removeprefix("torch."), "rounds": rounds,
        "seconds": round(statistics.median(a for a, _ in times), 3),
        "seconds_gap": round(statistics.median(b for _, b in times), 3),
        "ratio": round(statistics.median(ratios), 3),
        "lower_quartile": round(ratios[len(ratios) // 4], 3), "upper_quartile": round(ratios[-1 - len(ratios) // 4], 3),
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

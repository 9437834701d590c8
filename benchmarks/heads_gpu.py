#!/usr/bin/env python
"""Time the heads, and a training step with one, on a GPU.

    python benchmarks/heads_gpu.py [--rounds 15] [--batch 32 128]

Forward and backward of the head (features to the vector, without reduction layer), on the device's own clock (CUDA
events). In every round all versions run once, in turn, on the same features; ``ms`` is the median, ``ratio`` the median
over the rounds of textbook time / own time. Versions: ``textbook`` (benchmarks/textbook.py) and ``gcpzoo``, each as it
is and by ``torch.compile``; for isqrt also the Triton kernel in each of its arithmetics (``--triton``; compiling it can
take minutes). A version that fails has its error in ``note`` and no figures.
The training step is ResNet-50's at 224 px, isqrt of dim 256 against gap, both at ``last_stride`` 1, on the wall clock
with the device waited for. Writes results/heads_gpu.csv and results/training_step_gpu.csv. Without a GPU it only runs
through, on tiny sizes, and writes nothing.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import textbook
import torch
from torch import Tensor
from training_step import measure as training_step

from gcpzoo.functional import (
    distance_covariance,
    matrix_power,
    minimax_sqrt,
    newton_schulz_sqrt,
    sparse_inverse_covariance,
    svd_sqrt,
    triangle,
)
from gcpzoo.training.run_report import hardware

RESULTS = Path(__file__).parent / "results"
GPU = torch.cuda.is_available()
MAPS = ((256, 7), (256, 14), (256, 28), (128, 14))
Version = Callable[[Tensor], Tensor]
HEADS: dict[str, tuple[Version, Version]] = {  # textbook, gcpzoo
    "isqrt": (textbook.isqrt, lambda x: triangle(newton_schulz_sqrt(x, 5))),
    "minimax": (textbook.isqrt, lambda x: triangle(minimax_sqrt(x, 4))),
    "mpn_cov": (textbook.mpn_cov, lambda x: triangle(matrix_power(x))),
    "svd_pade": (textbook.mpn_cov, lambda x: triangle(svd_sqrt(x, "pade"))),
    "bdc": (
        lambda x: textbook.bdc(x, x.new_full((1, 1), -6)),
        lambda x: triangle(distance_covariance(x, x.new_full((1, 1), -6))),
    ),
    "isice": (textbook.isice, lambda x: triangle(sparse_inverse_covariance(x))),
}


def with_kernel(version: Version, precision: str, x: Tensor, cotangent: Tensor) -> None:
    os.environ["GCPZOO_TRITON"] = precision
    try:
        both_ways(version, x, cotangent)
    finally:
        del os.environ["GCPZOO_TRITON"]


def both_ways(version: Version, x: Tensor, cotangent: Tensor) -> None:
    x.grad = None
    version(x).backward(cotangent)


def milliseconds(call: Callable[[], None]) -> float:
    if not GPU:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def versions(head: str, triton: list[str], x: Tensor, cotangent: Tensor) -> dict[str, Callable[[], None]]:
    usual, own = HEADS[head]
    kinds = {"textbook": usual, "gcpzoo": own}
    kinds |= {f"{name}, compiled": torch.compile(version, dynamic=False) for name, version in kinds.items()}
    calls: dict[str, Callable[[], None]] = {name: partial(both_ways, v, x, cotangent) for name, v in kinds.items()}
    if head == "isqrt":
        calls |= {f"gcpzoo, Triton {p}": partial(with_kernel, own, p, x, cotangent) for p in triton}
    return calls


def measure(head: str, d: int, side: int, batch: int, rounds: int, triton: list[str]) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    torch.compiler.reset()
    device = "cuda" if GPU else "cpu"
    mix = torch.randn(d, d, device=device) / d**0.5
    x = (mix @ torch.randn(batch, d, side * side, device=device)).relu().requires_grad_()
    cotangent = torch.randn(batch, d * (d + 1) // 2, device=device)
    calls = versions(head, triton, x, cotangent)
    exact = torch.zeros(0)
    notes, gradients = {}, {}
    for name, call in calls.items():
        start = time.perf_counter()
        try:
            for _ in range(3):  # compiles, and warms up
                call()
        except Exception as error:  # the others are measured all the same
            notes[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
            continue
        finally:
            if GPU:
                torch.cuda.synchronize()
        assert x.grad is not None
        exact = x.grad.double() if name == "textbook" else exact
        gradients[name] = float((x.grad.double() - exact).norm() / exact.norm())
        seconds = time.perf_counter() - start
        notes[name] = f"first 3 calls {seconds:.0f} s" if seconds > 5 else ""
    calls = {name: call for name, call in calls.items() if name in gradients}
    turns = [{name: milliseconds(call) for name, call in calls.items()} for _ in range(rounds)]
    rows = []
    for name, note in notes.items():
        ran = name in calls
        rows.append(
            {
                "head": head, "d": d, "positions": side * side, "batch": batch, "version": name,
                "ms": round(statistics.median(t[name] for t in turns), 4) if ran else "",
                "ratio": round(statistics.median(t["textbook"] / t[name] for t in turns), 3) if ran else "",
                "gradient_from_textbook": f"{gradients[name]:.1e}" if ran else "",
                "rounds": rounds, "note": note, "machine": hardware(),
            }
        )  # fmt: skip
        print(*rows[-1].values(), sep=",", flush=True)
    return rows


def write(name: str, rows: list[dict[str, Any]]) -> None:
    if GPU:
        with (RESULTS / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--triton", nargs="*", default=[], help="ieee tf32x3 bf16x3 tf32")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for head in HEADS:
        for d, side in MAPS if GPU else [(16, 3), (8, 4)]:
            for batch in args.batch if GPU else [2]:
                rows += measure(head, d, side, batch, args.rounds, args.triton)
                write("heads_gpu.csv", rows)
    case = ("resnet50", 224, 64, 1000, "isqrt") if GPU else ("resnet50", 64, 2, 10, "isqrt")
    steps: list[dict[str, Any]] = []
    for dtype in (torch.bfloat16, torch.float32):
        steps.append(training_step(case, args.rounds, dtype, "cuda" if GPU else "cpu"))
        print(steps[-1], flush=True)
        write("training_step_gpu.csv", steps)


if __name__ == "__main__":
    main()

"""Time, memory and counted work of the heads against their textbook versions, side by side in one process.

    python benchmarks/heads.py [--threads 2] [--rounds 15] [--processor-time] [--study table d batch …]

Each round runs every version once, in turn, on the same features: forward and backward of the head, from features to
vector, without a reduction layer. ``ratio`` is the median over the rounds of textbook time / own time. With
``--processor-time`` (and one thread) the clock counts processor time, which other programs disturb less.

Versions: ``textbook`` (benchmarks/textbook.py); ``gcpzoo`` (what the head does here); for isqrt both of its ways,
``eigen`` (the polynomial on the eigenvalues, on a CPU from 64 rows) and ``iterated`` (products). The study table adds
``recomputed`` (the head with ``recompute=True``, which keeps the features only) and, for the roots, ``eigh alone`` (the
eigendecomposition of the smaller side and nothing else: the limit of any head that needs it). The study minimax has
that root with 4 steps, its textbook that of isqrt with 5.

Counted work: products by PyTorch's FlopCounterMode, plus 9n³ for each eigendecomposition (Golub & Van Loan, 8.3). The
ceiling is the best rate of a batched float32 product 32×256×256 in this process; float64 runs at half of it. Saved
bytes are what autograd keeps between the passes, including the features where it keeps them; ``beyond_mb`` leaves these
out, since a network keeps them anyway. Writes results/heads.csv, from which ``report.py`` makes the plot and README.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import textbook
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from gcpzoo.analysis.speed import kept_bytes
from gcpzoo.functional import (
    as_matrix,
    distance_covariance,
    lapack,
    matrix_power,
    minimax,
    minimax_sqrt,
    newton_schulz,
    newton_schulz_sqrt,
    share_threads,
    sparse_inverse_covariance,
    spectral_function,
    svd_sqrt,
    triangle,
)
from gcpzoo.functional.small_side import features, gram

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "heads.csv"
Version = Callable[[Tensor], Tensor]
Case = tuple[str, int, int, int, int]  # head, d, side of the map, batch, iterations

CLOCK = time.perf_counter
HEADS = (("isqrt", 5), ("mpn_cov", 0))
TABLE = (*HEADS, ("svd_pade", 0), ("bdc", 0), ("isice", 5))
BY_EIGH = ("isqrt", "mpn_cov", "svd_pade")
MAPS = ((256, 7, 32), (256, 14, 32), (256, 28, 16), (128, 14, 32))
STUDIES: dict[str, list[Case]] = {
    "table": [(head, d, side, batch, n) for head, n in TABLE for d, side, batch in MAPS],
    "d": [(head, d, 14, 16, n) for head, n in HEADS for d in (32, 64, 128, 192, 256, 384)],
    "positions": [(head, 256, side, 8, n) for head, n in HEADS for side in (4, 7, 10, 14, 20, 28)],
    "batch": [(head, 256, 14, batch, n) for head, n in HEADS for batch in (1, 4, 16, 64)],
    "minimax": [("minimax", d, side, batch, 4) for d, side, batch in MAPS],
    "iterations": [("isqrt", 256, 14, 8, n) for n in (1, 3, 5, 7, 9)],
}


def eigh_alone(x: Tensor, dtype: torch.dtype) -> Tensor:
    with torch.no_grad():
        lapack.eigh(gram(features(x.to(dtype)))[0])
    return x.sum((1, 2))[:, None].expand(-1, x.shape[1] * (x.shape[1] + 1) // 2)


def versions(head: str, n: int, study: str) -> dict[str, Version]:
    chosen = own_versions(head, n)
    if study not in ("table", "minimax"):
        return {name: chosen[name] for name in ("textbook", "gcpzoo")}
    chosen["recomputed"] = partial(checkpoint, chosen["gcpzoo"], use_reentrant=False)
    if head in BY_EIGH:
        chosen["eigh alone"] = partial(eigh_alone, dtype=torch.float32 if head == "isqrt" else torch.float64)
    return chosen


def own_versions(head: str, n: int) -> dict[str, Version]:
    if head == "mpn_cov":
        return {"textbook": textbook.mpn_cov, "gcpzoo": lambda x: triangle(matrix_power(x))}
    if head == "svd_pade":  # its rule is the textbook's gradient
        return {"textbook": textbook.mpn_cov, "gcpzoo": lambda x: triangle(svd_sqrt(x, "pade"))}
    if head == "minimax":
        return {
            "textbook": partial(textbook.isqrt, iterations=5),
            "gcpzoo": lambda x: triangle(minimax_sqrt(x, n)),
            "iterated": lambda x: triangle(minimax.PolarRoot.apply(as_matrix(x), minimax.COEFFICIENTS[n], True)),
        }
    if head == "bdc":
        tau = torch.tensor([[-6.0]], requires_grad=True)
        return {
            "textbook": partial(textbook.bdc, temperature=tau),
            "gcpzoo": lambda x: triangle(distance_covariance(x, tau)),
        }
    if head == "isice":
        return {
            "textbook": partial(textbook.isice, steps=n),
            "gcpzoo": lambda x: triangle(sparse_inverse_covariance(x, n)),
        }
    polynomial = partial(newton_schulz.polynomial, iterations=n)
    return {
        "textbook": partial(textbook.isqrt, iterations=n),
        "gcpzoo": lambda x: triangle(newton_schulz_sqrt(x, n)),
        "eigen": lambda x: triangle(spectral_function(x, polynomial, precision=x.dtype)),
        "iterated": lambda x: triangle(newton_schulz.NewtonSchulz.apply(as_matrix(x), n, True)),
    }


def run(version: Version, x: Tensor, cotangent: Tensor) -> tuple[float, float]:
    """Seconds of the forward pass, and of forward and backward."""
    x.grad = None
    start = CLOCK()
    out = version(x)
    middle = CLOCK()
    out.backward(cotangent)
    return middle - start, CLOCK() - start


def saved_bytes(version: Version, x: Tensor) -> tuple[int, int]:
    """Bytes kept between the passes, every storage once: with the features when they are kept, and without."""
    kept = kept_bytes(lambda: version(x))
    total, own = sum(kept.values()), x.untyped_storage()
    if getattr(version, "func", None) is checkpoint:  # keeps its arguments by itself
        return own.nbytes(), 0
    return total, total - kept.get(own.data_ptr(), 0)


def counted(version: Version, x: Tensor, cotangent: Tensor) -> float:
    """Floating-point operations of forward and backward."""
    eigh, counts = torch.linalg.eigh, []

    def counting(a: Tensor) -> tuple[Tensor, Tensor]:
        counts.append(9 * a.shape[0] * a.shape[1] ** 3)
        w, v = eigh(a)
        return w, v

    with patch("torch.linalg.eigh", counting), FlopCounterMode(display=False) as counter:
        run(version, x, cotangent)
    return counter.get_total_flops() + sum(counts)


def ceiling() -> float:
    """Operations per second of the best of 15 batched float32 products."""
    a = torch.randn(32, 256, 256)
    seconds = []
    for _ in range(15):
        start = CLOCK()
        torch.bmm(a, a)
        seconds.append(CLOCK() - start)
    return 2 * 32 * 256**3 / min(seconds)


def measure(study: str, case: Case, rounds: int, best: float) -> list[dict[str, object]]:
    head, d, side, batch, n = case
    torch.manual_seed(0)
    mix = torch.randn(d, d) / d**0.5
    x = (mix @ torch.randn(batch, d, side * side)).relu().requires_grad_()
    cotangent = torch.randn(batch, d * (d + 1) // 2)
    candidates = versions(head, n, study)
    for version in candidates.values():
        run(version, x, cotangent)
    turns = [{name: run(version, x, cotangent) for name, version in candidates.items()} for _ in range(rounds)]
    rows: list[dict[str, object]] = []
    for name, version in candidates.items():
        seconds = statistics.median(turn[name][1] for turn in turns)
        work, (saved, beyond) = counted(version, x, cotangent), saved_bytes(version, x)
        rows.append(
            {
                "study": study, "head": head, "d": d, "positions": side * side, "batch": batch, "iterations": n,
                "version": name,
                "forward_ms": round(1e3 * statistics.median(turn[name][0] for turn in turns), 3),
                "ms": round(1e3 * seconds, 3),
                "ratio": round(statistics.median(turn["textbook"][1] / turn[name][1] for turn in turns), 3),
                "gflop": round(work / 1e9, 3),
                "of_ceiling": round(work / seconds / best, 3),
                "saved_mb": round(saved / 1e6, 3), "beyond_mb": round(beyond / 1e6, 3),
            }
        )  # fmt: skip
    return rows


def describe(best: float, load: float) -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "clock": "processor time" if CLOCK is time.process_time else "wall",
        "ceiling_gflops": round(best / 1e9, 1), "load": load,
    }  # fmt: skip


def main() -> None:
    global CLOCK
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--study", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--processor-time", action="store_true")
    args = parser.parse_args()
    if args.processor_time:
        if args.threads != 1:
            parser.error("--processor-time needs --threads 1: threads that wait are counted too")
        CLOCK = time.process_time
    share_threads(True)  # as the command line does
    torch.set_num_threads(args.threads)
    load = round(os.getloadavg()[0], 1)  # of other programs, before this one starts
    best = ceiling()
    machine = describe(best, load)
    rows: list[dict[str, object]] = []
    for study in args.study:
        for case in STUDIES[study]:
            for row in measure(study, case, args.rounds, best):
                rows.append(row | machine)
                print(*row.values(), sep=" ", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    if RESULTS.exists():  # the studies that were not asked for stay
        with RESULTS.open() as file:
            rows = [row for row in csv.DictReader(file) if row["study"] not in args.study] + rows
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()

"""Errors and times of the Newton–Schulz chain in the arithmetics of the Triton kernel.

    python benchmarks/triton_newton_schulz.py [--batch 32] [--iterations 5] [--sizes 49 64 128 196 256]
        [--precisions ieee tf32x3 bf16x3 tf32]

Value with derivative, as the backward pass runs it; the errors are those of the derivative, relative to float64. On a
CUDA device the kernel runs: median milliseconds of 20 turns, every variant in turn. Without one its arithmetic is
imitated in PyTorch, errors only: both factors rounded (or cut off, as tensor cores do with float32 registers) to the
variant's digits, products summed in float32. ``x3`` sums three such products, of the factors and of what they lost.
The first call compiles, ``ieee`` for minutes from 33 rows (``triton_compile.py``); a variant that fails is said so.
Writes results/triton_newton_schulz.csv.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from gcpzoo.functional import newton_schulz
from gcpzoo.functional.newton_schulz import iterate

DIGITS = {"tf32": 10, "bf16": 7}  # binary, after the point
Product = Callable[..., Tensor]
Chain = Callable[..., tuple[Tensor, Tensor | None]]


def milliseconds(call: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def shortened(x: Tensor, digits: int, nearest: bool) -> Tensor:
    """float32 with fewer binary digits."""
    lost = 23 - digits
    bits = x.contiguous().view(torch.int32)
    bits = bits + (1 << (lost - 1)) if nearest else bits
    return (bits & -(1 << lost)).view(torch.float32)


def imitated(kind: str, nearest: bool) -> Product:
    """The product of a variant: ``tf32`` or ``bf16``, or three of them that carry the rests along (``x3``)."""
    short = partial(shortened, digits=DIGITS[kind.removesuffix("x3")], nearest=nearest)

    def product(a: Tensor, b: Tensor) -> Tensor:
        high_a, high_b = short(a), short(b)
        if not kind.endswith("x3"):
            return high_a @ high_b
        return short(a - high_a) @ high_b + high_a @ short(b - high_b) + high_a @ high_b

    def symmetric(a: Tensor, b: Tensor, c: Tensor | None = None, d: Tensor | None = None) -> Tensor:
        return product(a, b) if c is None or d is None else product(a, b) - product(c, d) / 2

    return symmetric


def imitations() -> dict[str, Chain]:
    def chain(product: Product, *args: object) -> tuple[Tensor, Tensor | None]:
        with patch.object(newton_schulz, "symmetric_product", product):
            return iterate(*args)  # type: ignore[arg-type]

    kinds = [(f"{kind}{times}", nearest) for kind in DIGITS for times in ("", "x3") for nearest in (True, False)]
    names = {f"{kind} {'rounded' if nearest else 'cut off'}": (kind, nearest) for kind, nearest in kinds}
    return {"float32": iterate} | {name: partial(chain, imitated(*how)) for name, how in names.items()}


def kernels(precisions: list[str]) -> dict[str, Chain]:
    from gcpzoo.functional import triton_newton_schulz as fused

    return {"PyTorch": iterate} | {f"Triton {p}": partial(fused.iterate, precision=p) for p in precisions}


def measure(variants: dict[str, Chain], batch: int, n: int, iterations: int, device: str) -> dict[str, dict[str, str]]:
    """Error and, on a GPU, milliseconds of each variant."""
    a = torch.randn(batch, n, 2 * n, device=device)
    a = a @ a.mT
    a /= a.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    direction = torch.randn_like(a)
    direction = direction + direction.mT
    exact = iterate(a.double(), iterations, False, direction.double())[1]
    assert exact is not None
    calls = {name: partial(chain, a, iterations, False, direction) for name, chain in variants.items()}
    rows = {}
    for name, call in list(calls.items()):  # also compiles
        try:
            found = call()[1]
        except Exception as error:  # too large for the device's registers or shared memory: the others go on
            rows[name] = {"error": "not measured", "ms": f"fails: {type(error).__name__}"}
            del calls[name]
            continue
        assert found is not None
        rows[name] = {"error": f"{float((found.double() - exact).norm() / exact.norm()):.1e}", "ms": "not measured"}
    if device == "cuda":
        turns = [{name: milliseconds(call) for name, call in calls.items()} for _ in range(20)]
        for name in calls:
            rows[name]["ms"] = f"{statistics.median(turn[name] for turn in turns):.4f}"
    return rows


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[49, 64, 128, 196, 256])
    parser.add_argument("--precisions", nargs="+", default=["ieee", "tf32x3", "bf16x3", "tf32"])
    args = parser.parse_args()
    torch.manual_seed(0)
    gpu = torch.cuda.is_available()
    path = Path(__file__).parent / "results" / "triton_newton_schulz.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["batch", "rows", "iterations", "variant", "error", "ms", "machine"])
        for n in args.sizes:
            device = "cuda" if gpu else "cpu"
            found = measure(kernels(args.precisions) if gpu else imitations(), args.batch, n, args.iterations, device)
            for name, row in found.items():
                machine = torch.cuda.get_device_name() if gpu else "imitated on a CPU"
                line = (args.batch, n, args.iterations, name, row["error"], row["ms"], machine)
                writer.writerow(line)
                print(*line, sep=",", flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Compile the Triton kernel of Newton–Schulz for a GPU that need not be there, and say whether it could be launched.

    python benchmarks/triton_compile.py [--capability 90] [--sizes 64 128 256] [--limit 120]

Each variant is compiled for 5 iterations in a process of its own, with the warps that the package gives it, and stopped
after ``--limit`` seconds. ``shared_kb``: shared memory that a program asks for (a Hopper GPU gives it at most 227).
``stack_bytes``: of each thread, where registers did not suffice; they go through device memory. ``seconds`` is what the
first call would wait. Nothing is run. Writes results/triton_compile.csv.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHARED = {80: 163, 86: 99, 89: 99, 90: 227}  # KB a program can have, by compute capability


def compile_one(size: int, precision: str, derivative: bool, capability: int) -> dict[str, Any]:
    """In a process of its own."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from gcpzoo.functional import triton_newton_schulz as fused

    pointers = dict.fromkeys(("a_ptr", "da_ptr", "p_ptr", "dp_ptr"), "*fp32")
    constants = {
        "ITERATIONS": 5, "DIVIDED": False, "DERIVATIVE": derivative, "SIZE": size, "PRECISION": precision,
    }  # fmt: skip
    source = ASTSource(fused._chain, {**pointers, "n": "i32", **dict.fromkeys(constants, "constexpr")}, constants)
    warps = 4 if size <= 64 else 8 if size == 128 else 16  # as in fused.iterate
    start = time.perf_counter()
    try:
        kernel = triton.compile(source, GPUTarget("cuda", capability, 32), {"num_warps": warps})
    except Exception as error:
        reason = re.search(r"fatal\s+: (.*)", str(error))
        return {"outcome": f"does not compile: {reason[1] if reason else type(error).__name__}"}
    seconds = time.perf_counter() - start
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        usage = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    shared = kernel.metadata.shared / 1024
    fits = shared <= SHARED.get(capability, 227)
    return {
        "seconds": round(seconds, 1), "shared_kb": shared, "registers": found[1] if found else "",
        "stack_bytes": found[2] if found else "",
        "outcome": "can be launched" if fits else "more shared memory than there is",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=90)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--limit", type=float, default=120)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(compile_one(**json.loads(args.one))))
        return
    import triton

    from gcpzoo.functional.triton_newton_schulz import PRECISIONS

    os.environ["TRITON_ALWAYS_COMPILE"] = "1"  # else a second run would find the first one's kernels
    columns = ["size", "precision", "derivative", "outcome", "seconds", "shared_kb", "registers", "stack_bytes"]
    columns += ["capability", "triton"]
    with (Path(__file__).parent / "results" / "triton_compile.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        for size, precision, derivative in itertools.product(args.sizes, PRECISIONS, (False, True)):
            case = {"size": size, "precision": precision, "derivative": derivative}
            call = [sys.executable, __file__, "--one", json.dumps({**case, "capability": args.capability})]
            try:
                done = subprocess.run(call, capture_output=True, text=True, timeout=args.limit)
                lines = done.stdout.strip().splitlines()
                found = json.loads(lines[-1]) if lines else {"outcome": f"failed: {done.stderr[-200:]}"}
            except subprocess.TimeoutExpired:
                found = {"outcome": f"not compiled after {args.limit:.0f} s"}
            writer.writerow({**case, **found, "capability": args.capability, "triton": triton.__version__})
            file.flush()
            print(*case.values(), *found.values(), flush=True)


if __name__ == "__main__":
    main()

"""``gcpzoo verify``: check a checkpoint against its record."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the command's options."""
    p = subparsers.add_parser("verify", help="check a checkpoint's hash, tensors, logits and accuracy")
    p.add_argument("model", help="a zoo name, a folder, hf-hub:owner/repo or a run's .ckpt")
    p.add_argument("--data", help="a folder with one subfolder of images a class (the test split) to measure top-1 on")
    p.add_argument("--batch-size", type=int, default=64, help="images at a time (64)")
    p.add_argument("--device", default="cpu", help="cpu, or cuda where there is one (cpu)")
    p.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print every check; exit code 1 where one fails."""
    from gcpzoo.experiments import verify

    checks = verify(args.model, args.data, args.batch_size, args.device)
    for check in checks:
        mark = {True: "ok    ", False: "FAILED", None: "  –   "}[check.ok]
        print(f"{mark} {check.name:14} {check.detail}")
    return 1 if any(check.ok is False for check in checks) else 0

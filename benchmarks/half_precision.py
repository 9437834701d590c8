#!/usr/bin/env python
"""Train every head under autocast in float16 (with a loss scaler) and bfloat16, and look for NaN and infinity.

    python benchmarks/half_precision.py [--steps 200] [--threads 2] [--heads isqrt …] [--precision float16 bfloat16]

A ResNet-18 up to layer1: 64 channels, reduced to 32 but for gap, mgcrp and svd_topn (which sets 50 eigenvalues to
nothing). 8 images of 32×32 px a step out of 64 of noise in 8 classes, that differ in color and in how neighbouring
pixels go together; it is learnt by heart. SGD with momentum; gradients cut at norm 5. Looked at in every step:
the loss; the gradients after the scale is taken out, but for steps that the scaler skips (it starts at 65536 and halves
itself after each); the weights after the step. ``finite`` is "yes" or the first of them that is not, with the step.
Writes results/half_precision.csv: ``machine`` says where it ran.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gcpzoo
from gcpzoo.training.run_report import hardware

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CLASSES, IMAGES, BATCH = 8, 64, 8
DIMS = {"gap": None, "mgcrp": "auto", "svd_topn": None}


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(IMAGES) % CLASSES
    x = torch.randn(IMAGES, 3, 32, 32, generator=generator)
    mixes = torch.randn(CLASSES, 3, 3, generator=generator)
    x = torch.einsum("bij,bjhw->bihw", mixes[y], x)
    x = x + (y[:, None, None, None] / CLASSES) * x.roll(1, 3)
    return x.to(DEVICE), y.to(DEVICE)


def finite(tensors: list[Tensor]) -> bool:
    return all(bool(t.isfinite().all()) for t in tensors)


def train(head: str, dtype: torch.dtype, steps: int, rate: float) -> dict[str, Any]:
    torch.manual_seed(0)
    model = gcpzoo.create_model("resnet18", head, CLASSES, dim=DIMS.get(head, 32), until="layer1").train().to(DEVICE)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=rate, momentum=0.9)
    scaler = torch.amp.GradScaler(DEVICE, enabled=dtype is torch.float16)
    x, y = images()
    order = torch.Generator().manual_seed(1)
    skipped, verdict, losses = 0, "yes", []
    for step in range(steps):
        chosen = torch.randperm(IMAGES, generator=order)[:BATCH].to(DEVICE)
        with torch.autocast(DEVICE, dtype):
            loss = nn.functional.cross_entropy(model(x[chosen]).float(), y[chosen])
        losses.append(float(loss))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        gradients = [p.grad for p in weights if p.grad is not None]
        sound = finite(gradients)
        nn.utils.clip_grad_norm_(weights, 5.0)
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        skip = scaler.get_scale() < before
        skipped += skip
        if not finite([loss]):
            verdict = f"no: loss, step {step}"
        elif not sound and not skip:
            verdict = f"no: gradient, step {step}"
        elif not finite(weights):
            verdict = f"no: weights, step {step}"
        if verdict != "yes":
            break
    last = losses[-max(1, min(20, len(losses) // 2)) :]
    return {
        "head": head, "precision": str(dtype).removeprefix("torch."), "steps": len(losses), "finite": verdict,
        "skipped_steps": skipped, "final_scale": scaler.get_scale() if scaler.is_enabled() else "",
        "first_loss": round(losses[0], 3), "final_loss": round(sum(last) / len(last), 3), "lr": rate,
        "machine": hardware(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--heads", nargs="+", default=gcpzoo.list_heads())
    parser.add_argument("--precision", nargs="+", default=["float16", "bfloat16"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = Path(__file__).parent / "results" / "half_precision.csv"
    rows = []
    for head in args.heads:
        for name in args.precision:
            rows.append(train(head, getattr(torch, name), args.steps, args.lr))
            print(*rows[-1].values(), sep=",", flush=True)
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()

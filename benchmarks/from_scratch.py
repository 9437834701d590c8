#!/usr/bin/env python
"""Train a ResNet-18 for small pictures from scratch with different heads, all by one recipe, and compare.

    python benchmarks/from_scratch.py PICTURES OUTPUT [--heads gap isqrt mpn_cov gsop2] [--seeds 0 1 2] [--epochs 40]

PICTURES holds train/CLASS/* and val/CLASS/* (Tiny ImageNet, 64×64 px). The network is torchvision's ResNet-18 with a
3×3 conv1 of stride 1, no max pooling and ``last_stride`` 1, for every head. ``gsop1`` is gap with GSoP in all four
stages (GSoP-Net1), ``gsop2`` isqrt of 3 iterations with GSoP in the first three (GSoP-Net2).

Recipe, the same for all: SGD, Nesterov momentum 0.9, weight decay 5e-4; two epochs of warm-up, then a cosine to 0;
batch 256; label smoothing 0.1; random crop of the picture padded by 8 (reflected) and flip, made on the device;
bfloat16 autocast on a GPU (the heads compute in float32). The learning rate is chosen for each head among ``--rates``
by a training of ``--search-epochs`` on nine tenths of the TRAINING pictures, by the accuracy on the last tenth. The
final trainings use all training pictures; the last epoch counts. val/ plays the test set; its curve decides nothing.

Writes into OUTPUT, after every epoch: results.csv (``val/top1``: the held-out tenth, in the search only; ``test/top1``:
val/, in the final trainings only), one JSON a run, and after it the test predictions (npz) and, for seed 0, the weights
in float16 (safetensors). A run that is finished is not repeated. Without a GPU this takes days.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.datasets import ImageFolder

import gcpzoo
from gcpzoo.callbacks import hardware

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH, PAD, WARM_UP = 256, 8, 2
COLUMNS = ["data", "backbone", "head", "phase", "seed", "epoch", "train/loss", "val/top1", "test/top1", "seconds", "lr"]
HEADS: dict[str, dict[str, Any]] = {
    "gap": {"head": "gap"},
    "isqrt": {"head": "isqrt", "dim": 256, "head_args": {"iterations": 5}},
    "mpn_cov": {"head": "mpn_cov", "dim": 256},
    "dropcov": {"head": "dropcov", "dim": 256},
    "gsop1": {"head": "gap", "blocks": {"gsop": {"stages": [1, 2, 3, 4]}}},
    "gsop2": {
        "head": "isqrt", "dim": 256, "head_args": {"iterations": 3}, "blocks": {"gsop": {"stages": [1, 2, 3]}}
    },
}  # fmt: skip


def create(name: str, classes: int, seed: int) -> gcpzoo.GCPNet:
    torch.manual_seed(seed)
    model = gcpzoo.create_model("resnet18", num_classes=classes, last_stride=1, **HEADS[name])
    conv = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    model.backbone.conv1, model.backbone.maxpool = conv, nn.Identity()  # the tensors keep torchvision's names
    model = model.to(DEVICE)
    model.backbone.to(memory_format=torch.channels_last)
    return model


def read(folder: Path, limit: int | None) -> tuple[Tensor, Tensor, list[str], list[str]]:
    """Pictures as uint8 on the device, classes, class names and file names; ``limit``: of each class only the first."""
    found = ImageFolder(str(folder))
    count: dict[int, int] = {}
    chosen = []
    for path, y in found.samples:
        count[y] = count.get(y, 0) + 1
        if limit is None or count[y] <= limit:
            chosen.append((path, y))
    pictures = np.stack([np.asarray(found.loader(path)) for path, _ in chosen])
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().to(DEVICE)
    y = torch.tensor([y for _, y in chosen], device=DEVICE)
    return x, y, found.classes, [str(Path(path).relative_to(folder)) for path, _ in chosen]


def normalised(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    return ((x.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """A crop at random, of the padded picture, and a flip: the pixels of every picture are looked up on the device."""
    n, _, height, width = x.shape
    top, left = (torch.randint(-PAD, PAD + 1, (n, 1), generator=generator).to(x.device) for _ in range(2))
    flip = torch.rand(n, 1, generator=generator).to(x.device) < 0.5
    rows = top + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(n, -1)
    columns = left + torch.where(flip, width - 1 - columns, columns)
    rows, columns = ((i.abs() - 2 * (i - (size - 1)).clamp_min(0)) for i, size in ((rows, height), (columns, width)))
    picture = torch.arange(n, device=x.device)[:, None, None]
    out = x.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]]
    return out.permute(0, 3, 1, 2)


def forward(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
        return model(normalised(x))


@torch.no_grad()
def logits(model: nn.Module, x: Tensor) -> Tensor:
    model.eval()
    out = torch.cat([forward(model, part).float() for part in x.split(2 * BATCH)])
    model.train()
    return out


def top(scores: Tensor, y: Tensor, k: int) -> float:
    best = scores.topk(min(k, scores.shape[1])).indices
    return round(100 * float((best == y[:, None]).any(1).float().mean()), 3)


def train(
    model: nn.Module, data: tuple[Tensor, Tensor], looked_at: tuple[Tensor, Tensor], rate: float, epochs: int, seed: int
) -> Any:
    """Yields (mean training loss, top-1 on what is looked at, seconds) after every epoch."""
    x, y = data
    generator = torch.Generator().manual_seed(seed)  # order, crops and flips
    torch.manual_seed(seed)  # what a head draws
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    batches = math.ceil(len(x) / BATCH)
    total, warm = epochs * batches, min(WARM_UP, epochs / 2) * batches
    step = 0
    for _ in range(epochs):
        start, losses = time.perf_counter(), []
        for chosen in torch.randperm(len(x), generator=generator).to(x.device).chunk(batches):
            share = (step + 1) / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / (total - warm))) / 2
            optimizer.param_groups[0]["lr"] = rate * share
            out = forward(model, augmented(x[chosen], generator)).float()
            loss = nn.functional.cross_entropy(out, y[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            step += 1
        mean = float(torch.stack(losses).mean())  # waits for the device
        seconds = time.perf_counter() - start
        yield round(mean, 4), top(logits(model, looked_at[0]), looked_at[1], 1), round(seconds, 2)
        if not math.isfinite(mean):
            return


class Book:
    """OUTPUT: the rows of results.csv and one JSON a run, written after every epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        return self.folder / name

    def finished(self, name: str) -> dict[str, Any] | None:
        path = self.path(f"{name}.json")
        run: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return run if run.get("finished") else None

    def write(self, name: str, run: dict[str, Any]) -> None:
        self.path(f"{name}.json").write_text(json.dumps(run, indent=1) + "\n")
        runs = [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]
        with self.path("results.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for each in runs:
                fixed = {key: each[key] for key in ("data", "backbone", "head", "phase", "seed", "lr")}
                writer.writerows({**fixed, **epoch} for epoch in each["epochs"])


def run(
    book: Book, name: str, head: str, phase: str, model: gcpzoo.GCPNet, data: tuple[Tensor, Tensor],
    looked_at: tuple[Tensor, Tensor], rate: float, epochs: int, seed: int, source: str,
) -> dict[str, Any]:  # fmt: skip
    column = "val/top1" if phase == "search" else "test/top1"
    record: dict[str, Any] = {
        "data": source, "backbone": "resnet18, 3×3 conv1, no max pooling", "head": head, "phase": phase, "seed": seed,
        "lr": rate, "planned_epochs": epochs, "batch": BATCH, "pictures": len(data[0]), "model": model.config,
        "hardware": hardware(), "torch": torch.__version__, "finished": False, "epochs": [],
    }  # fmt: skip
    for epoch, (loss, accuracy, seconds) in enumerate(train(model, data, looked_at, rate, epochs, seed), 1):
        record["epochs"].append({"epoch": epoch, "train/loss": loss, column: accuracy, "seconds": seconds})
        book.write(name, record)
        print(name, epoch, loss, accuracy, seconds, flush=True)
    record["finished"] = True
    scores = logits(model, looked_at[0])
    record["top1"], record["top5"] = top(scores, looked_at[1], 1), top(scores, looked_at[1], 5)
    if phase == "final":
        np.savez_compressed(
            book.path(f"{name}.npz"),
            label=looked_at[1].cpu().numpy().astype(np.int16),
            top5=scores.topk(min(5, scores.shape[1])).indices.cpu().numpy().astype(np.int16),
        )
    book.write(name, record)
    return record


def save_weights(path: Path, model: gcpzoo.GCPNet, classes: list[str]) -> None:
    state = {k: v.cpu().contiguous() for k, v in model.state_dict().items()}
    state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    about = {"config": json.dumps(model.config), "class_names": json.dumps(classes), "stem": "3x3, no max pooling"}
    save_file(state, path, about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=["gap", "isqrt", "mpn_cov", "gsop2"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    parser.add_argument("--search-epochs", type=int, default=8)
    parser.add_argument("--limit", type=int, help="this many pictures of each class only, to try the script")
    args = parser.parse_args()
    book, source = Book(args.output), args.pictures.resolve().name
    x, y, classes, _ = read(args.pictures / "train", args.limit)
    tx, ty, test_classes, names = read(args.pictures / "val", args.limit)
    assert classes == test_classes
    book.path("test_files.txt").write_text("\n".join(names) + "\n")
    book.path("classes.txt").write_text("\n".join(classes) + "\n")
    held_out = torch.zeros(len(x), dtype=torch.bool, device=DEVICE)
    held_out[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[: len(x) // 10].to(DEVICE)] = True
    inner, outer = (x[~held_out], y[~held_out]), (x[held_out], y[held_out])
    best = {}
    for head in args.heads:
        found = {}
        for rate in args.rates:
            name = f"search-{head}-lr{rate:g}"
            record = book.finished(name) or run(
                book, name, head, "search", create(head, len(classes), 0), inner, outer, rate, args.search_epochs, 0,
                source,
            )  # fmt: skip
            found[rate] = record["top1"]
        best[head] = max(found, key=lambda rate: found[rate])
        print(head, found, "chosen", best[head], flush=True)
    for seed in args.seeds:
        for head in args.heads:
            name = f"final-{head}-seed{seed}"
            if book.finished(name):
                continue
            model = create(head, len(classes), seed)
            record = run(book, name, head, "final", model, (x, y), (tx, ty), best[head], args.epochs, seed, source)
            print(name, record["top1"], record["top5"], flush=True)
            if seed == 0:
                save_weights(book.path(f"{name}.safetensors"), model, classes)


if __name__ == "__main__":
    main()

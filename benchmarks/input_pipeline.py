"""Images per second on one core: gcpzoo's training input against torchvision's usual one, side by side.

    python benchmarks/input_pipeline.py [--folder PHOTOGRAPHS] [--quality 75 90] [--rounds 15]

The usual one: ``ImageFolder`` with Pillow, RandomResizedCrop(224), flip, ToTensor, Normalize. Both run in this process
on one core and one thread, in turns on the same 64 images; the figure is the median of the turns' ratios. Processor
time is counted, so other work on the machine matters little; the files are in memory, so the disk is not measured.

    item: one image after the other, as a worker process makes them
    batch: the same through a DataLoader (collated, 64 in a batch)
    batch, normalized: as batch, with our uint8 batch normalized on the same core instead of the device

Without ``--folder`` the images are cut from scikit-learn's two sample photographs. All are resized to 500×375.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from gcpzoo.data import ImageFolder
from gcpzoo.data.scan import scan_images

COUNT, SIZE = 64, (500, 375)
RESULTS = Path(__file__).parent / "results" / "input_pipeline.csv"


def photographs(folder: str | None) -> list[Image.Image]:
    if folder:
        paths = scan_images(folder).images
        paths = paths[:: max(1, len(paths) // COUNT)][:COUNT]
        return [Image.open(path).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS) for path in paths]
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    rng = np.random.default_rng(0)
    cuts = []
    for i in range(COUNT):
        photo = photos[i % len(photos)]
        x, y = rng.integers(0, photo.width - SIZE[0] + 1), rng.integers(0, photo.height - SIZE[1] + 1)
        cuts.append(photo.crop((x, y, x + SIZE[0], y + SIZE[1])))
    return cuts


def lay_out(photos: list[Image.Image], quality: int, root: str) -> float:
    """Two class folders of JPEG files; returns their mean size in kB."""
    for i, photo in enumerate(photos):
        path = Path(root, "train", "ab"[i % 2], f"{i}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path, quality=quality)
    return sum(path.stat().st_size for path in Path(root).rglob("*.jpg")) / len(photos) / 1e3


def pipelines(root: str) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    usual = torchvision.datasets.ImageFolder(
        f"{root}/train",
        transforms.Compose(
            [
                transforms.RandomResizedCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        ),
    )
    data = ImageFolder(root, batch_size=COUNT, workers=0, val_fraction=0)
    ours = data.train_dataloader()
    theirs = DataLoader(usual, COUNT, shuffle=True)
    return {
        "item": (lambda: [usual[i] for i in range(COUNT)], lambda: [ours.dataset[i] for i in range(COUNT)]),
        "batch": (lambda: next(iter(theirs)), lambda: next(iter(ours))),
        "batch, normalized": (
            lambda: next(iter(theirs)),
            lambda: data.on_after_batch_transfer(next(iter(ours)), 0),
        ),
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="folder of photographs")
    parser.add_argument("--quality", type=int, nargs="+", default=[75, 90], help="of the JPEG files")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    machine = f"{processor()}, torch {torch.__version__}, torchvision {torchvision.__version__}"
    rows = []
    for quality in args.quality:
        with tempfile.TemporaryDirectory() as root:
            size = lay_out(photographs(args.folder), quality, root)
            for what, (usual, ours) in pipelines(root).items():
                usual(), ours()
                turns = [(seconds(usual), seconds(ours)) for _ in range(args.rounds)]
                ratios = sorted(a / b for a, b in turns)
                row = {
                    "what": what,
                    "quality": quality,
                    "file_kb": round(size, 1),
                    "usual_per_s": round(COUNT / statistics.median(a for a, _ in turns)),
                    "ours_per_s": round(COUNT / statistics.median(b for _, b in turns)),
                    "ratio": round(statistics.median(ratios), 2),
                    "ratio_quartiles": f"{ratios[len(ratios) // 4]:.2f}–{ratios[-1 - len(ratios) // 4]:.2f}",
                    "rounds": args.rounds,
                    "machine": machine,
                }
                rows.append(row)
                print("  ".join(f"{key} {value}" for key, value in row.items() if key != "machine"), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    print(f"{args.out} written on {machine}")


if __name__ == "__main__":
    main()

"""Watch the memory of a long training of a large classifier, and of the evaluation of 100,000 images.

    nice -n 10 python benchmarks/load.py [--images 100000] [--steps 2000] [--batch 16] [--folder FOLDER]

The command line runs on generated JPEG files of 32×32 px in 1,000 class folders: ``gcpzoo fit`` takes ``--steps``
steps with a ResNet-18 up to layer3, isqrt and a classifier of 32,896 inputs and 1,000 classes (SGD with momentum);
``gcpzoo test`` then evaluates its checkpoint on ``--images`` images. The files are read by two data workers.

``mb_10`` to ``mb_90``: memory when that share of the command's time (per cent) has passed, the median of what is read
once a second in a tenth of the time, in MB. It is what the command and its workers occupy, shared pages counted once
(``Pss`` of Linux). ``growth_mb``: ``mb_90`` - ``mb_50``, when start and checks of the files are over; ``peak_mb``: the
most that was read. Files in the page cache are not counted. Writes results/load.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "load.csv"
CLASSES, SIDE, BLOCK = 1000, 32, 8
DATA = ["--data", "ImageFolder", "--data.image_size", str(SIDE), "--data.workers", "2"]
NETWORK = ["--model.backbone", "resnet18", "--model.until", "layer3", "--model.head", "isqrt", "--model.dim", "null"]
OPTIMIZER = ["--model.optimizer.name", "SGD", "--model.optimizer.lr", "1e-3"]


def generate(folder: Path, images: int) -> None:
    """Write images of blocks in random colors, around a mean of their class."""
    rng = np.random.default_rng(images)
    means = rng.integers(64, 192, (CLASSES, BLOCK, BLOCK, 3))
    for i in range(images):
        label = i % CLASSES
        target = folder / f"class{label:04}" / f"{i:06}.jpg"
        if i < CLASSES:
            target.parent.mkdir(parents=True)
        pixels = (means[label] + rng.integers(-64, 64, (BLOCK, BLOCK, 3))).astype(np.uint8)
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST).save(target, quality=75)


def family(process: int) -> list[int]:
    """The process and all that it has started."""
    children = (Path(f"/proc/{process}/task") / str(process) / "children").read_text().split()
    return [process, *(member for child in children for member in family(int(child)))]


def occupied(process: int) -> float:
    """Megabytes of a process and its children."""
    kilobytes = 0
    for member in family(process):
        lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        kilobytes += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes * 1024 / 1e6


def watch(arguments: list[str]) -> dict[str, object]:
    """Run a command of gcpzoo, and give seconds and megabytes."""
    start, read = time.perf_counter(), []
    with subprocess.Popen([sys.executable, "-m", "gcpzoo", *arguments], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError, StopIteration):  # one of them may just have ended
                read.append((time.perf_counter() - start, occupied(process.pid)))
            time.sleep(1)
    if process.returncode:
        sys.exit(f"gcpzoo {arguments[0]} failed")
    seconds = time.perf_counter() - start
    shares = {
        share: statistics.median(mb for at, mb in read if abs(at / seconds - share / 100) < 0.05)
        for share in range(10, 100, 20)
    }
    return {
        "seconds": round(seconds),
        **{f"mb_{share}": round(mb) for share, mb in shares.items()},
        "growth_mb": round(shares[90] - shares[50]),
        "peak_mb": round(max(mb for _, mb in read)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--folder", help="for the files; otherwise one that is deleted at the end")
    args = parser.parse_args()
    if args.images < CLASSES or args.steps * args.batch < CLASSES:
        parser.error(f"every one of the {CLASSES} classes needs an image")
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        generate(folder / "training" / "train", args.steps * args.batch)
        generate(folder / "training" / "test", CLASSES)  # gcpzoo fit ends with a test
        generate(folder / "evaluation" / "test", args.images)
        run = folder / "run"
        fit = ["fit", *DATA, "--data.root", f"{folder}/training", "--data.val_fraction", "0", *NETWORK, *OPTIMIZER]
        fit += ["--data.batch_size", str(args.batch), "--trainer.max_epochs", "1", "--output", str(run)]
        test = ["test", *DATA, "--data.root", f"{folder}/evaluation", "--data.batch_size", "64"]
        test += ["--ckpt_path", f"{run}/checkpoints/last.ckpt", "--output", f"{folder}/evaluated"]
        rows = [
            {"command": "gcpzoo fit", "images": args.steps * args.batch, "steps": args.steps} | watch(fit),
            {"command": "gcpzoo test", "images": args.images, "steps": -(-args.images // 64)} | watch(test),
        ]
    for row in rows:
        print(*row.values(), flush=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()

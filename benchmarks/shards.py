"""Images per second from shards and from folders, side by side: files in memory, and dropped from it

    python benchmarks/shards.py [--images 1000] [--rounds 5] [--workers 0 2] [--folder PLACE]

The same JPEG files (500×375 px, quality 90, cut from scikit-learn's two sample photographs) in class folders and in
shards of 16 MiB, read in the same shuffled order, in turns. ``ratio`` is the median of the turns' ratios of wall time,
shards over folders in images per second.

    read: the bytes alone, in one thread, with the CRC-32 of the shards
    train: an epoch of ImageNet's training loader (224 px), decoded and augmented

``warm``: read once before. ``cold``: the pages of all files are dropped before every turn (``posix_fadvise`` with
``DONTNEED`` after a flush; ``in_memory_after_drop`` says what share of the pages stayed in memory nevertheless). Names
and inodes stay in memory: what fetching them costs, with a million files or on a network, is not in these figures. The
disk of a virtual machine may be in the memory of its host. The load of other programs stands beside each row.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import mmap
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from input_pipeline import photographs

from gcpzoo.data import ImageNet
from gcpzoo.data.sharding import pack
from gcpzoo.data.shards import open_file

CLASSES = ("n01440764", "n01443537", "n01484850", "n01491361")
RESULTS = Path(__file__).parent / "results" / "shards.csv"


def lay_out(root: str, images: int) -> None:
    photos = photographs(None)
    for i in range(images):
        path = Path(root, "train", CLASSES[i % len(CLASSES)], f"{i:06}.JPEG")
        path.parent.mkdir(parents=True, exist_ok=True)
        photos[i % len(photos)].save(path, quality=90)


def drop(root: str) -> None:
    """Drop the pages of all files from memory."""
    for path in (p for p in Path(root).rglob("*") if p.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def in_memory(root: str) -> float:
    """Return the share of the files' pages that are in memory, as ``mincore`` says."""
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
    present = pages = 0
    for path in (p for p in Path(root).rglob("*") if p.is_file() and p.stat().st_size):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
            view = np.frombuffer(mapped, np.uint8)
            answer = ctypes.create_string_buffer(-(-len(mapped) // mmap.PAGESIZE))
            if mincore(view.ctypes.data, len(mapped), answer):
                raise OSError(ctypes.get_errno(), "mincore")
            present += sum(byte & 1 for byte in answer.raw[: -(-len(mapped) // mmap.PAGESIZE)])
            pages += -(-len(mapped) // mmap.PAGESIZE)
            del view
    return present / pages


def tasks(root: str, workers: list[int]) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    data = ImageNet(root, batch_size=50, workers=0, check=False)
    samples = data.samples("train")
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()

    def read() -> None:
        for i in order:
            with open_file(samples[i][0]) as file:
                file.read()

    def train(number: int) -> Callable[[], None]:
        loader = ImageNet(root, batch_size=50, workers=number, check=False).train_dataloader()

        def epoch() -> None:
            for _ in loader:
                pass

        return epoch

    return {"read": read} | {f"train, {n} workers": train(n) for n in workers}


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(folders: str, shards: str, what: str, cold: bool, runs: tuple[Callable, Callable], rounds: int) -> dict:
    """Time folders and shards in turns; the first of a turn changes from turn to turn."""
    turns, loads, stayed = [], [], []
    if not cold:
        [run() for run in runs]
    for turn in range(rounds):
        times = [0.0, 0.0]
        loads.append(os.getloadavg()[0])
        for k in (0, 1) if turn % 2 else (1, 0):
            if cold:
                drop((folders, shards)[k])
                stayed.append(in_memory((folders, shards)[k]))
            times[k] = seconds(runs[k])
        turns.append(times)
    ratios = sorted(a / b for a, b in turns)
    images = len(ImageNet(folders, check=False).samples("train"))
    return {
        "what": what,
        "cache": "cold" if cold else "warm",
        "folders_per_s": round(images / statistics.median(a for a, _ in turns)),
        "shards_per_s": round(images / statistics.median(b for _, b in turns)),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_range": f"{ratios[0]:.2f}–{ratios[-1]:.2f}",
        "in_memory_after_drop": f"{100 * statistics.mean(stayed):.0f} %" if cold else "",
        "images": images,
        "rounds": rounds,
        "load": f"{min(loads):.1f}–{max(loads):.1f}",
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--folder", help="where the files are made: the disk that is measured")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        folders, shards = f"{place}/folders", f"{place}/shards"
        lay_out(folders, args.images)
        pack(folders, shards, 2**24)
        ours, theirs = tasks(shards, args.workers), tasks(folders, args.workers)
        for what in ours:
            for cold in (False, True):
                row = compare(folders, shards, what, cold, (theirs[what], ours[what]), args.rounds)
                rows.append(row)
                print("  ".join(f"{key} {value}" for key, value in row.items() if key != "machine"), flush=True)
        del ours, theirs  # ends their worker processes
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    print(f"{args.out} written")


if __name__ == "__main__":
    main()

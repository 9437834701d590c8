"""Disks that fill up, and files of a run that are damaged while it is stopped."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from commands import FIT, Fault, differences, last, run, verdict
from kills import random_moment

from gcpzoo.training.checkpoints import is_whole


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """Give a file system of this size at ``folder``, if mounting is allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disks(reference: Path, scratch: Path) -> Iterator[Fault]:
    """Train on disks of several sizes, each of which fills up at another moment; enlarge it, go on, compare."""
    size = last(reference).stat().st_size // 1024
    for part in (0.05, 0.3, 0.6, 0.9, 1.1, 1.4, 1.8, 2.05, 2.3, 2.6, 2.9, 3.05):
        place = scratch / f"disk-{part}"
        with small_disk(place, round(part * size)) as mounted:
            folder = place / "run"
            limit = None if mounted else _limit(round(part * size * 1024 / 3))
            kind = "disk full" if mounted else "file too large (quota by rlimit; mounting is not allowed here)"
            outcome = run(*FIT, "--output", folder, "--resume", preexec_fn=limit)
            lost = verdict(outcome, 2, "cannot be written") if outcome.code else ""
            if outcome.code and last(folder).exists() and not is_whole(last(folder)):
                lost = "last.ckpt is not whole"
            if mounted:
                subprocess.run(["mount", "-o", "remount,size=1g", str(place)], check=True)
            again = run(*FIT, "--output", folder, "--resume", watch=last(folder))
            wrong = differences(reference, folder) if again.code == 0 else [again.text[-300:]]
            fault = Fault(kind, f"at {part:g} times the size of a checkpoint", lost, again.restarted)
            fault.lost = fault.lost or (f"differs from the uninterrupted run: {wrong[:3]}" if wrong else "")
            if outcome.code:
                yield fault
        shutil.rmtree(place, ignore_errors=True)


def _limit(size: int) -> Callable[[], None]:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def damaged_checkpoints(reference: Path, scratch: Path, count: int, seed: int) -> Iterator[Fault]:
    """Damage the last checkpoint of a stopped run; the former one is taken, and nothing but time is lost."""
    rng = random.Random(seed)
    stopped = scratch / "stopped"
    while not (stopped / "checkpoints" / "former.ckpt").exists():
        run(*FIT, "--output", stopped, "--resume", stop=random_moment(stopped, rng))
    for i in range(count):
        folder = scratch / f"damaged-{i}"
        shutil.copytree(stopped, folder)
        path = last(folder)
        content = bytearray(path.read_bytes())
        what = ("truncated", "a byte changed", "zeros at the end", "emptied", "noise")[i % 5]
        if what == "truncated":
            content = content[: rng.randrange(1, len(content))]
        elif what == "a byte changed":  # inside a tensor: the headers between them hold nothing that is read
            content[rng.randrange(len(content) // 4, 3 * len(content) // 4)] ^= 1 << rng.randrange(8)
        elif what == "zeros at the end":
            content[-rng.randrange(1, len(content)) :] = b"\0"
        else:
            content = bytearray() if what == "emptied" else bytearray(rng.randbytes(len(content)))
        path.write_bytes(content)
        outcome = run(*FIT, "--output", folder, "--resume", watch=path)
        whole_again = what == "a byte changed" and "damaged" not in outcome.text
        lost = verdict(outcome, 0, *([] if whole_again else ["damaged; going on from"]))
        wrong = [] if lost else differences(reference, folder)
        lost = lost or (f"differs from the uninterrupted run: {wrong[:3]}" if wrong else "")
        yield Fault("checkpoint damaged", what, lost, outcome.restarted)
        shutil.rmtree(folder)
    for name in ("config.yaml", "metrics.json", "checkpoints/last.ckpt", "checkpoints/former.ckpt", "metrics.csv"):
        folder = scratch / "removed"
        shutil.copytree(stopped, folder)
        os.remove(folder / name)
        outcome = run(*FIT, "--output", folder, "--resume", watch=last(folder))
        if name == "config.yaml":
            lost = verdict(outcome, 2, "config.yaml is missing")
        else:
            lost = verdict(outcome, 0)
            wrong = [] if lost else differences(reference, folder)
            lost = lost or (f"differs from the uninterrupted run: {wrong[:3]}" if wrong else "")
        yield Fault("file of the run removed", name, lost, outcome.restarted)
        shutil.rmtree(folder)

"""Warn where a run is tested on images that it, or the run it starts from, has learned from."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from gcpzoo.data import ImageFolder
from gcpzoo.data.seen import count_seen
from gcpzoo.hub.run_checkpoint import RunCheckpoint, read_run_checkpoint
from gcpzoo.paths import run_file


def find_run(name: str | None) -> RunCheckpoint | None:
    """Open the run that a model's name stands for; nothing where it is no run's.

    >>> find_run("resnet18_isqrt.cub50") is None
    True
    """
    if not name:
        return None
    path = run_file(name) or Path(name)
    return read_run_checkpoint(path) if path.suffix == ".ckpt" else None


def warn_of_seen(run: RunCheckpoint | None, data: ImageFolder, split: str) -> None:
    """Say how many images of a split a run has learned from, where its training knew them.

    >>> warn_of_seen(None, ImageFolder("/data"), "test")
    """
    if run is None:
        return
    samples = data.samples(split)
    if seen := count_seen(run.files.get("train"), samples, str(data.root)):
        rank_zero_warn(
            f"{seen:,} of {len(samples):,} {split} images trained the model before: its figures on them are too good. "
            "Folders that grow are split anew: for figures that hold, put the images into train and test folders"
        )

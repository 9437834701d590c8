"""Which image files a run learned from: a folder that has changed since must not pass for the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.paths import file_state

FILES = "files"
"""Key in what a data module adds to a checkpoint: the numbers of the files of each split."""


def number_files(samples: Sequence[tuple[Any, int]], root: str) -> Tensor:
    """Give each file a number by its path in ``root`` and its size: int64 ``(N,)``, sorted.

    >>> len(number_files([("/nowhere/1.png", 0), ("/nowhere/2.png", 1)], "/nowhere"))
    2
    """
    above = os.path.join(root, "")  # relpath would take a minute for ImageNet
    names = (str(path).removeprefix(above) for path, _ in samples)
    numbers = [
        int.from_bytes(blake2b(os.fsencode(f"{name}/{_size(path)}"), digest_size=8).digest(), signed=True)
        for name, (path, _) in zip(names, samples)
    ]
    return torch.tensor(sorted(numbers), dtype=torch.int64)


def _size(path: Any) -> int:
    if (size := getattr(path, "size", None)) is not None:  # in a shard
        return int(size)
    state = file_state(path)
    return state[0] if state else -1  # files that are not there are named elsewhere


def refuse_other_files(before: Mapping[str, Tensor], now: Mapping[str, Tensor], root: str) -> None:
    """Refuse to go on with a training whose splits are others now.

    Raises:
        ZooError: if a split has not the same files.

    >>> refuse_other_files({"train": torch.tensor([1, 2])}, {"train": torch.tensor([1, 2, 3])}, "photos")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: photos has changed since this run began (2 train images then, 3 train now): ...
    """
    if before.keys() == now.keys() and all(torch.equal(before[split], now[split]) for split in now):
        return
    then, today = (", ".join(f"{len(part):,} {split}" for split, part in of.items()) for of in (before, now))
    how = f"{then} images then, {today} now" if then != today else "as many images, but others"
    raise ZooError(
        f"{root} has changed since this run began ({how}): its splits would hold other images, and tests ones that it "
        "has learned from; put the folder back as it was, or start a new run with another --output"
    )


def files_of_splits(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Find the numbers of the files of each split in the content of a checkpoint; nothing where it has none.

    >>> files_of_splits({"ImageFolder": {"files": {"train": torch.tensor([1, 2])}}})
    {'train': tensor([1, 2])}
    """
    states = [state[FILES] for state in content.values() if isinstance(state, Mapping) and FILES in state]
    files = states[0] if states and isinstance(states[0], Mapping) else {}
    whole = all(isinstance(numbers, Tensor) and numbers.dtype == torch.int64 for numbers in files.values())
    return dict(files) if whole else {}


def count_seen(trained: Tensor | None, samples: Sequence[tuple[Any, int]], root: str) -> int:
    """Count the files of a split that a run has learned from.

    Args:
        trained: numbers of the run's training files; null: not known.
        samples: of the split.
        root: of the data.

    >>> count_seen(number_files([("a/1.png", 0)], "a"), [("b/1.png", 0), ("b/2.png", 0)], "b")
    1
    """
    if trained is None or not len(trained):
        return 0
    return int(torch.isin(number_files(samples, root), trained).sum())

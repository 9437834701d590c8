"""Many images for an evaluation: read by worker processes, in batches, and no bad file ends the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gcpzoo.data.images import ImageError, read_image
from gcpzoo.data.loading import EpochSampler, cores, load
from gcpzoo.errors import ZooError

BATCH = 128
"""Images that a network sees at a time, where nobody says otherwise."""


class Batch(NamedTuple):
    """Consecutive images.

    Attributes:
        groups: positions and pixels, uint8 ``(n, 3, h, w)`` or ``(n, V, 3, h, w)``; one group for each size.
        faults: why an image cannot be used, by its position.

    >>> Batch([([0, 2], torch.zeros(2, 3, 4, 4, dtype=torch.uint8))], {1: "cannot read image"}).faults
    {1: 'cannot read image'}
    """

    groups: list[tuple[list[int], Tensor]]
    faults: dict[int, str]


class Readable(Dataset[tuple[int, "Tensor | str"]]):
    """Map a position to ``(position, pixels)``, or to ``(position, reason)`` where the image cannot be used.

    >>> Readable(["/nowhere/cat.png"], read_image, len)[0]
    (0, 'cannot read image /nowhere/cat.png: no such file; replace or delete it')
    """

    def __init__(self, images: Sequence[Any], read: Callable[[Any], Any], transform: Callable[[Any], Tensor]) -> None:
        self.images, self.read, self.transform = images, read, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[int, Tensor | str]:
        try:
            return i, self.transform(self.read(self.images[i]))
        except ImageError as error:
            return i, str(error)
        except ValueError as error:  # of the transform: smaller than its crops, too long and thin
            return i, f"cannot read image {self.images[i]}: {error}"


def read_batches(
    images: Sequence[Any],
    transform: Callable[[Any], Tensor],
    read: Callable[[Any], Any] = read_image,
    batch_size: int = BATCH,
    workers: int | None = None,
) -> Iterator[Batch]:
    """Read images in their order, ahead of whoever takes the batches.

    Args:
        images: what ``read`` takes, such as the paths of files.
        transform: makes uint8 pixels of what ``read`` gives, as ``Preprocessing.pixels`` does.
        read: the reader.
        batch_size: images in a batch.
        workers: number of processes that read; null: one for each core, at most 8, and none for a single batch.

    Raises:
        ZooError: if ``batch_size`` or ``workers`` cannot work.

    >>> batches = read_batches(["ab", "abc", "abcd"], lambda n: torch.zeros(3, n, n), read=len, batch_size=2, workers=0)
    >>> [[(at, tuple(pixels.shape)) for at, pixels in batch.groups] for batch in batches]
    [[([0], (1, 3, 2, 2)), ([1], (1, 3, 3, 3))], [([2], (1, 3, 4, 4))]]
    """
    if batch_size < 1:
        raise ZooError(f"batch_size must be at least 1, got {batch_size}")
    if workers is not None and not 0 <= workers <= 1024:
        raise ZooError(f"workers must be between 0 and 1024, got {workers}")
    if not images:
        return iter(())
    if workers is None:
        workers = min(8, cores()) if len(images) > batch_size else 0
    found = Readable(images, read, transform)
    return iter(load(found, EpochSampler(len(images), batch_size), workers, collate=collate))


def collate(images: list[tuple[int, Tensor | str]]) -> Batch:
    """Stack the images of each size, and set the reasons of those that cannot be used apart.

    >>> collate([(4, "cannot read image"), (5, torch.zeros(3, 2, 2))]).groups[0][0]
    [5]
    """
    sizes: dict[Any, list[tuple[int, Tensor]]] = {}
    for i, pixels in images:
        if isinstance(pixels, Tensor):
            sizes.setdefault(pixels.shape, []).append((i, pixels))
    groups = [([i for i, _ in group], torch.stack([pixels for _, pixels in group])) for group in sizes.values()]
    return Batch(groups, {i: reason for i, reason in images if isinstance(reason, str)})

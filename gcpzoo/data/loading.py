"""Loading by the numbers: what an epoch shows, in which order and how augmented, follows from seed and epoch alone.

So a training that was stopped anywhere goes on with exactly the images that it would have seen, whatever the number of
workers, and every process knows its share.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from gcpzoo.errors import ZooError

Sample = tuple[Any, int]
Loader = TypeVar("Loader", bound=DataLoader[Any])


def run_seed() -> int:
    """Return the seed of Lightning's ``seed_everything``; 0 if there was none.

    >>> from unittest.mock import patch
    >>> with patch.dict("os.environ", PL_GLOBAL_SEED="7"):
    ...     run_seed()
    7
    """
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def derived_seed(*numbers: int) -> int:
    """Mix non-negative numbers, such as seed, epoch and index, into a seed of 63 bits.

    >>> derived_seed(0, 1) == derived_seed(0, 1), derived_seed(0, 1) == derived_seed(1, 0)
    (True, False)
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def ignore_sigterm(worker: int) -> None:
    """Let a worker process go on at SIGTERM, which schedulers send to all processes: the training ends it in time.

    Args:
        worker: number of the worker; not used.

    >>> before = signal.getsignal(signal.SIGTERM)
    >>> ignore_sigterm(0)
    >>> signal.signal(signal.SIGTERM, before) == signal.SIG_IGN
    True
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Images(Dataset[tuple[Tensor, int]]):
    """Map an index, or ``(epoch, index)``, to ``(uint8 tensor, label)``: ``transform(read(path))``.

    With an epoch the transform is random: its draws follow from seed, epoch and index alone.

    >>> Images([("cat.png", 0)], read=len, transform=lambda n: 2 * n)[0]
    (14, 0)
    """

    def __init__(
        self, samples: Sequence[Sample], read: Callable[[Any], Any], transform: Callable[[Any], Tensor], seed: int = 0
    ) -> None:
        self.samples, self.read, self.transform, self.seed = samples, read, transform, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, int]:
        if isinstance(key, int):
            path, label = self.samples[key]
            return self.transform(self.read(path)), label
        from lightning.pytorch.utilities.seed import isolate_rng  # predicting files does without Lightning

        epoch, i = key
        path, label = self.samples[i]
        image = self.read(path)
        with isolate_rng(include_cuda=False):
            seed = derived_seed(self.seed, run_seed(), epoch, i)
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 (timm's RandAugment draws from this generator)
            random.seed(seed)
            return self.transform(image), label


class EpochSampler(DistributedSampler[Any]):
    """The share of one process in the images of an epoch, batch after batch.

    With a seed the order is a new permutation in each epoch; each batch over all processes is the next part of it, of
    which every process takes each ``processes``-th image. So the batches do not depend on the number of processes. The
    rest that fills no batch is used as far as all processes get the same number of images, two at least, which batch
    normalization needs. Without a seed, for evaluation, the order is that of the data, and every image is in exactly
    one share.

    Args:
        images: number of images.
        batch_size: number of images in a batch of one process.
        seed: of the permutations; null: in order.
        rank, processes: number of this process, and of all.

    Raises:
        ZooError: if there are fewer images than processes.

    >>> sampler = EpochSampler(5, batch_size=2, seed=0)
    >>> sampler.set_epoch(1)
    >>> list(sampler)
    [(1, 1), (1, 4), (1, 0), (1, 3)]
    >>> list(EpochSampler(5, batch_size=2, rank=1, processes=2))
    [1, 3]
    """

    def __init__(
        self, images: int, batch_size: int, seed: int | None = None, rank: int = 0, processes: int = 1
    ) -> None:
        if images < processes:
            raise ZooError(f"every process needs an image: {images} images are too few for {processes} processes")
        super().__init__(range(images), num_replicas=processes, rank=rank)  # type: ignore[arg-type]
        self.images, self.batch_size, self.order_seed, self.processes = images, batch_size, seed, processes
        self.place = {"epoch": 0, "batches": 0, "global_batch_size": batch_size * processes}

    def share(self, epoch: int) -> list[int]:
        """List this process's images of an epoch.

        >>> EpochSampler(4, batch_size=1, rank=1, processes=2).share(0)
        [1, 3]
        """
        if self.order_seed is None:
            return list(range(self.rank, self.images, self.processes))
        generator = torch.Generator().manual_seed(derived_seed(self.order_seed, epoch))
        order = torch.randperm(self.images, generator=generator)[: self._used()]
        parts = order.split(self.batch_size * self.processes)
        return torch.cat([part[self.rank :: self.processes] for part in parts]).tolist()

    def first_batch(self) -> int:
        """Return the batch that this epoch begins with: 0, or where a stopped training goes on.

        Raises:
            ZooError: if that training had batches of another size, so that its place in the epoch has another meaning.

        >>> sampler = EpochSampler(8, batch_size=2)
        >>> sampler.place = {"epoch": 5, "batches": 3, "global_batch_size": 2}
        >>> sampler.first_batch()
        0
        >>> sampler.set_epoch(5)
        >>> sampler.first_batch()
        3
        """
        if self.place["epoch"] != self.epoch:
            return 0
        size, before = self.batch_size * self.processes, self.place["global_batch_size"]
        if self.place["batches"] and size != before:
            raise ZooError(
                f"the checkpoint is from the middle of an epoch with {before} images a step over all processes, this "
                f"run has {size}: change data.batch_size or trainer.devices"
            )
        return self.place["batches"]

    def _used(self) -> int:
        """Count the images of an epoch that all processes together train on."""
        rest = self.images % (self.batch_size * self.processes)
        usable = rest - rest % self.processes
        if usable < 2 * self.processes and usable < self.images:
            usable = 0
        return self.images - rest + usable

    def __len__(self) -> int:
        if self.order_seed is None:
            return len(range(self.rank, self.images, self.processes))
        return self._used() // self.processes

    def __iter__(self) -> Iterator[Any]:
        share = self.share(self.epoch)[self.first_batch() * self.batch_size :]
        yield from share if self.order_seed is None else ((self.epoch, i) for i in share)


def even_batch_size(images: int, batch_size: int, processes: int) -> int:
    """Return the batch size nearest to ``batch_size`` with which all processes evaluate the same number of batches.

    Their numbers of images differ by one where ``processes`` does not divide ``images``; a process with one batch more
    than another would wait for it forever.

    >>> even_batch_size(359, 90, 2), even_batch_size(361, 90, 2)
    (90, 89)
    """
    least, most = images // processes, -(-images // processes)
    sizes = sorted(range(1, most + 1), key=lambda size: (abs(size - batch_size), size))
    return next((s for s in sizes if -(-least // s) == -(-most // s)), batch_size) if least != most else batch_size


class ResumableLoader(DataLoader[Any]):
    """A DataLoader over an :class:`EpochSampler` whose place in the epoch is part of Lightning's checkpoints.

    >>> loader = ResumableLoader([0, 10, 20, 30], batch_size=2, sampler=EpochSampler(4, 2))
    >>> loader.load_state_dict({"epoch": 0, "batches": 1, "global_batch_size": 2})
    >>> list(loader)
    [tensor([20, 30])]
    >>> loader.state_dict()
    {'epoch': 0, 'batches': 2, 'global_batch_size': 2}
    """

    sampler: EpochSampler
    batches = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.batches = self.sampler.first_batch()
        for batch in super().__iter__():
            self.batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Give the number of batches that the current epoch has delivered.

        >>> ResumableLoader([0, 1], batch_size=2, sampler=EpochSampler(2, 2)).state_dict()
        {'epoch': 0, 'batches': 0, 'global_batch_size': 2}
        """
        size = self.sampler.batch_size * self.sampler.processes
        return {"epoch": self.sampler.epoch, "batches": self.batches, "global_batch_size": size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after these batches of this epoch; other epochs are whole.

        >>> loader = ResumableLoader([0, 1], batch_size=1, sampler=EpochSampler(2, 1))
        >>> loader.load_state_dict({"epoch": 0, "batches": 1, "global_batch_size": 1})
        >>> list(loader)
        [tensor([1])]
        """
        self.sampler.place = state


def cores() -> int:
    """Count the cores that this process may use; macOS cannot say, and gives all.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load(
    images: Dataset[Any],
    sampler: EpochSampler,
    workers: int,
    kind: type[Loader] = DataLoader,  # type: ignore[assignment]
    collate: Callable[[list[Any]], Any] | None = None,
) -> Loader:
    """Load the images that a sampler names, in worker processes that live as long as the loader.

    Args:
        images: by their numbers.
        sampler: the order, and the size of a batch.
        workers: number of processes; 0: this one reads.
        kind: class of the loader.
        collate: makes a batch of a list of images; null: one tensor of all of them.

    >>> images = Images([("cat.png", 0), ("dog.png", 1)], read=len, transform=torch.tensor)
    >>> list(load(images, EpochSampler(2, batch_size=2), workers=0))
    [[tensor([7, 7]), tensor([0, 1])]]
    """
    return kind(
        images,
        batch_size=sampler.batch_size,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=ignore_sigterm,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
    )

"""What is measured, and what a measurement is: the ground that all measurements of a trained network stand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcpzoo.data.base import ImageDataModule
from gcpzoo.data.classes import check_same_classes
from gcpzoo.data.loading import EpochSampler, Images, derived_seed, load
from gcpzoo.errors import ZooError
from gcpzoo.hub.loading import load_task_checkpoint
from gcpzoo.hub.run_checkpoint import read_run_checkpoint
from gcpzoo.models.gcpnet import GCPNet

Row = dict[str, Any]
"""A row of a table: column → text, whole number or float. Rows of several networks have a column ``model``."""
NOT_SNAPSHOTS = ("last.ckpt", "former.ckpt")
"""What every run keeps: its last checkpoint, which is the network itself, and the one before."""
KEPT = 1024
"""Most images of a split that stay in memory, so that later measurements need not read them again."""


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint from the middle of a training.

    Attributes:
        epoch: number of epochs that were begun, from 0.
        step: number of optimizer steps before it.
        path: its file.

    >>> Snapshot(0, 45, Path("run/checkpoints/epoch=0.ckpt")).step
    45
    """

    epoch: int
    step: int
    path: Path


def find_snapshots(run: str | Path) -> list[Snapshot]:
    """Find the checkpoints that a run of ``gcpzoo fit`` kept beside the last one, by steps.

    A run keeps them where ``trainer.callbacks`` has Lightning's ``ModelCheckpoint`` with ``save_top_k: -1``.

    Args:
        run: the run's folder.

    Raises:
        ZooError: if one of them is damaged.

    >>> find_snapshots("/nowhere")
    []
    """
    found: dict[int, Snapshot] = {}
    for path in sorted(Path(run).rglob("*.ckpt")):
        if path.name not in NOT_SNAPSHOTS:
            kept = read_run_checkpoint(path)
            if kept.epoch is not None and kept.step is not None:
                found.setdefault(kept.step, Snapshot(kept.epoch, kept.step, path))
    return [found[step] for step in sorted(found)]


@dataclass
class Subject:
    """A trained network, its control, and the images to measure them on.

    Attributes:
        name: of the network, as it stands in the column ``model``.
        model: the network, in eval mode.
        data: whose images; with the network's own preprocessing.
        control: a network to compare with, which reads the same images.
        control_name: its name.
        seed: of everything that is drawn: which images, directions, cotangents.
        images: most images of a split to use; ``None``: each measurement's own number.
        precision: of the images that :meth:`batches` gives.
        history: one row of logged values for each epoch, where the network is a run of ``gcpzoo fit``.
        snapshots: checkpoints that the run kept, by steps.
        severities: of the corruptions, 1 to 5.
        extra_corruptions: also measure the four that the mean does not count.

    >>> from gcpzoo.data import Digits
    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "gap", 10, until="layer1").eval()
    >>> subject = Subject("mine", model, Digits(batch_size=4), control=model, control_name="other", images=6)
    >>> [name for name, _ in subject.networks()]
    ['mine', 'other']
    >>> [images.shape for images, labels in subject.batches("test", limit=6)]
    [torch.Size([4, 3, 32, 32]), torch.Size([2, 3, 32, 32])]
    """

    name: str
    model: GCPNet
    data: ImageDataModule
    control: GCPNet | None = None
    control_name: str | None = None
    seed: int = 0
    images: int | None = None
    precision: torch.dtype = torch.float32
    history: Sequence[Mapping[str, Any]] = ()
    snapshots: Sequence[Snapshot] = ()
    severities: Sequence[int] = (1, 2, 3, 4, 5)
    extra_corruptions: bool = False
    _kept: dict[tuple[str, int], list[tuple[Tensor, Tensor]]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name, model in self.networks():
            if model.head.frames > 1:
                raise ZooError(f"{name} reads clips, and images are measured: its head must have frames=1")
            if model.num_classes != self.data.num_classes:
                raise ZooError(f"{name} knows {model.num_classes} classes, the data have {self.data.num_classes}")
            check_same_classes(model.class_names, self.data.class_names)
        if self.control is not None and self.control_name == self.name:
            self.control_name = f"{self.name} (control)"

    def networks(self) -> Iterator[tuple[str, GCPNet]]:
        """Give the network and, if there is one, the control, by name."""
        yield self.name, self.model
        if self.control is not None:
            yield self.control_name or "control", self.control

    def through_training(self) -> Iterator[tuple[Row, GCPNet]]:
        """Give the run's checkpoints, the network and the control, each with the columns ``model`` to ``step``."""
        for kept in self.snapshots:
            about = {"model": self.name, "source": "checkpoint", "epoch": kept.epoch, "step": kept.step}
            yield about, load_task_checkpoint(kept.path)
        last = max((row["epoch"] for row in self.history if "epoch" in row), default=None)
        for name, model in self.networks():
            yield {"model": name, "source": "final", "epoch": None if name != self.name else last, "step": None}, model

    def loss_split(self) -> str:
        """Name the split whose loss was minimized: ``train``, or ``test`` where the data have no training images."""
        return "train" if self.has("train") else "test"

    def has(self, split: str) -> bool:
        """Say whether the data set has a split."""
        try:
            return bool(self.data.samples(split))
        except ZooError:
            return False

    def pixels(self, split: str, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Give uint8 images ``(B, 3, h, w)``, resized and cropped as in an evaluation, and their labels ``(B,)``.

        Args:
            split: ``train``, ``val`` or ``test``; training images without augmentation.
            limit: most images, drawn by the seed, always the same; in the order of the data. ``None``: all.

        Raises:
            ZooError: if there is no such split, or an image cannot be read.
        """
        samples = self.data.samples(split)
        count = len(samples) if limit is None else min(limit, len(samples))
        if (split, count) in self._kept:
            yield from self._kept[split, count]
            return
        self.data.screen({split: samples})
        samples = self.data.samples(split)  # without those that the screening left out
        chosen = np.sort(np.random.default_rng(derived_seed(self.seed, len(samples))).permutation(len(samples))[:count])
        images = Images([samples[i] for i in chosen], self.data.reader(train=False), self.data.preprocessing.pixels())
        loader: Any = load(images, EpochSampler(len(images), self.data.batch_size), self.data.workers)
        kept = []
        for batch, labels in loader:
            if count <= KEPT:
                kept.append((batch, labels))
            yield batch, labels
        if kept:
            self._kept[split, count] = kept

    def batches(self, split: str, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Give normalized images ``(B, 3, h, w)`` in :attr:`precision` and labels; arguments as of :meth:`pixels`."""
        for pixels, labels in self.pixels(split, limit):
            yield self.data.preprocessing.normalize(pixels).to(self.precision), labels


@dataclass(frozen=True)
class Measurement:
    """One thing to measure.

    Attributes:
        name: of the table ``NAME.csv`` and the figure ``NAME.svg``.
        run: measures, and gives the rows of the table; the same columns in each. No rows: it does not apply.
        draw: the rows' figure, made by :func:`gcpzoo.analysis.drawing.figures.new_figure`.
        corresponds_to: what it shows, and the paper with the figure or table that it corresponds to.
        needs: a module that only an extra of the package installs.

    >>> Measurement("depth", lambda subject: [], lambda rows: None, "how deep a network is").name
    'depth'
    """

    name: str
    run: Callable[[Subject], list[Row]]
    draw: Callable[[Sequence[Mapping[str, Any]]], Any]
    corresponds_to: str
    needs: str | None = None

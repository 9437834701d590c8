"""Classify image files with a model of the zoo."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gcpzoo.analysis.over_images import choose_device, logits, over_images
from gcpzoo.data.bulk import BATCH
from gcpzoo.errors import ZooError
from gcpzoo.hub.loading import load
from gcpzoo.models.class_labels import class_labels
from gcpzoo.models.gcpnet import GCPNet


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class of an answer: its id, what people read, and its probability.

    >>> ClassScore("n01440764", "tench, Tinca tinca", 0.9).probability
    0.9
    """

    name: str
    description: str
    probability: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The likeliest classes of an image, or why it could not be read.

    >>> Answer("cat.png", (ClassScore("cat", "cat", 0.9),)).to_dict()["classes"][0]["class"]
    'cat'
    """

    path: str
    classes: tuple[ClassScore, ...] = ()
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values.

        >>> Answer("cat.png").to_dict()
        {'path': 'cat.png', 'classes': []}
        """
        classes = [{"class": c.name, **{k: v for k, v in asdict(c).items() if k != "name"}} for c in self.classes]
        return {"path": self.path, "classes": classes}


class Predictor:
    """A model that names the likeliest classes of image files, in batches.

    Args:
        model: a loaded model, or what :func:`gcpzoo.load` takes.
        top: number of classes in an answer.
        views: of each image: ``single``; ``mirror``: crop and mirrored crop; ``ten_crop``. Logits are averaged.
        batch_size: images that the network sees at a time, each view counted.
        workers: number of processes that read images; null: one for each core, at most 8, and none for a single batch.
        device: ``cpu``, ``cuda``, … or ``auto``; null: where the model is.

    >>> predictor = Predictor("resnet18_isqrt.digits", top=2)
    >>> len(predictor.model.class_names)
    10
    """

    def __init__(
        self,
        model: GCPNet | str | os.PathLike[str],
        top: int = 5,
        views: str = "single",
        batch_size: int = BATCH,
        workers: int | None = None,
        device: str | None = None,
    ) -> None:
        if top < 1:
            raise ZooError(f"top must be at least 1, got {top}")
        self.model = model if isinstance(model, GCPNet) else load(model)
        self.top = min(top, self.model.num_classes)
        self.names, self.descriptions = class_labels(self.model)
        self.views, self.batch_size, self.workers = views, batch_size, workers
        self.device = None if device is None else str(choose_device(device))

    def __call__(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Answer]:
        """Answer for each file in turn; one that cannot be read gives an answer with ``error``."""
        for answers in self.batches(paths):
            yield from answers

    def batches(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[list[Answer]]:
        """Answer batch after batch, in the order of the paths.

        >>> [[answer.path for answer in batch] for batch in Predictor("resnet18_isqrt.digits").batches(["no.png"])]
        [['no.png']]
        """
        files = [os.fspath(path) for path in paths]
        loading = {"batch_size": self.batch_size, "workers": self.workers, "device": self.device}
        for outputs in over_images(self.model, logits, files, views=self.views, **loading):  # type: ignore[arg-type]
            found = {i: Answer(files[i], error=fault) for i, fault in outputs.faults.items()}
            if outputs.values:
                for i, classes in zip(outputs.values, self.classes(torch.stack(list(outputs.values.values())))):
                    found[i] = Answer(files[i], classes)
            yield [found[i] for i in sorted(found)]

    def classes(self, logits: Tensor, top: int | None = None) -> list[tuple[ClassScore, ...]]:
        """Name the likeliest classes of each row of logits ``(B, num_classes)``, ``top`` of them, by default the own.

        >>> predictor = Predictor("resnet18_isqrt.digits", top=2)
        >>> [c.name for c in predictor.classes(torch.arange(10.0)[None])[0]]
        ['9', '8']
        """
        p, k = logits.softmax(1).topk(min(top or self.top, self.model.num_classes))
        return [
            tuple(ClassScore(self.names[c], self.descriptions[c], round(v, 4)) for c, v in zip(classes, row))
            for row, classes in zip(p.tolist(), k.tolist())
        ]

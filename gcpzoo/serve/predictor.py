"""Classify image files with a model of the zoo."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from gcpzoo.data.images import ImageError, read_image
from gcpzoo.errors import ZooError
from gcpzoo.hub.loading import load
from gcpzoo.models.gcpnet import GCPNet


@dataclass(frozen=True)
class ClassScore:
    """One class of an answer: its id, what people read, and its probability.

    >>> ClassScore("n01440764", "tench, Tinca tinca", 0.9).probability
    0.9
    """

    name: str
    description: str
    probability: float


@dataclass(frozen=True)
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
    """A model that names the likeliest classes of image files.

    Args:
        model: a loaded model, or what :func:`gcpzoo.load` takes.
        top: number of classes in an answer.

    >>> predictor = Predictor("resnet18_isqrt.digits", top=2)
    >>> len(predictor.model.class_names)
    10
    """

    def __init__(self, model: GCPNet | str | os.PathLike[str], top: int = 5) -> None:
        if top < 1:
            raise ZooError(f"top must be at least 1, got {top}")
        self.model = model if isinstance(model, GCPNet) else load(model)
        self.top = min(top, self.model.num_classes)
        self.transform = self.model.transform
        self.names = self.model.class_names or [str(i) for i in range(self.model.num_classes)]
        self.descriptions = self.model.class_descriptions or self.names

    def __call__(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Answer]:
        """Answer for each file in turn; one that cannot be read gives an answer with ``error``."""
        for path in (os.fspath(p) for p in paths):
            try:
                image = read_image(path)
            except ImageError as error:
                yield Answer(path, error=str(error))
                continue
            with torch.inference_mode():
                p, k = self.model(self.transform(image)[None]).softmax(1)[0].topk(self.top)
            if not p.isfinite().all():
                raise ZooError(f"the model answers {path} with values that are not finite: its weights are damaged")
            scores = (
                ClassScore(self.names[i], self.descriptions[i], round(v, 4)) for v, i in zip(p.tolist(), k.tolist())
            )
            yield Answer(path, tuple(scores))

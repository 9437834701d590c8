"""A model at work for a server: bytes of an image to pixels, pixels to vectors in batches, vectors to answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from gcpzoo import limits
from gcpzoo.analysis.over_images import choose_device, compute, logits, vectors
from gcpzoo.data.bulk import collate
from gcpzoo.data.images import ImageTooLargeError, decode_image
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.serve.predictor import Answer, Predictor

FUNCTIONS = {"predict": logits, "embed": vectors}
"""What can be asked of an image."""


class Task(NamedTuple):
    """What is asked of an image, one of ``FUNCTIONS``, and its pixels, uint8 ``(3, h, w)``.

    >>> Task("embed", torch.zeros(3, 4, 4, dtype=torch.uint8)).kind
    'embed'
    """

    kind: str
    pixels: Tensor


def served_pixels(rule: Preprocessing, pixels: Callable[[Any], Tensor], image: Image.Image, name: str) -> Tensor:
    """Bring the image of a stranger to the size that a model sees, unless that is too large.

    Args:
        rule: the preprocessing.
        pixels: what ``rule.pixels()`` gives.
        image: the image.
        name: what the message calls it.

    Raises:
        ImageTooLargeError: if it has too many pixels, or would have.

    >>> rule = Preprocessing(resize=None, crop=None)
    >>> served_pixels(rule, rule.pixels(), Image.new("RGB", (4000, 4000)), "wall.png")
    Traceback (most recent call last):
    gcpzoo.data.images.ImageTooLargeError: cannot read image wall.png: 4,000×4,000 is more than 4,194,304 pixels
    """
    try:
        found = pixels(image)
    except ZooError as error:
        raise ImageTooLargeError(f"cannot read image {name}: {error}") from None
    height, width = found.shape[1:]
    free = rule.crop is None and not isinstance(rule.resize, tuple)
    if free and height * width > limits.SERVED_PIXELS:
        most = f"{limits.SERVED_PIXELS:,} pixels"
        raise ImageTooLargeError(f"cannot read image {name}: {width:,}×{height:,} is more than {most}")
    return found


class Engine:
    """A model that stays in eval mode on its device.

    Args:
        predictor: the model, with its device.
        name: what answers call it.

    >>> engine = Engine(Predictor("resnet18_isqrt.digits"), "digits")
    >>> answer, = engine.compute([Task("embed", torch.zeros(3, 32, 32, dtype=torch.uint8))])
    >>> answer.shape
    torch.Size([2080])
    """

    def __init__(self, predictor: Predictor, name: str) -> None:
        self.predictor, self.name = predictor, name
        self.rule = predictor.model.preprocessing or Preprocessing()
        self.device = choose_device(predictor.device or str(next(predictor.model.parameters()).device))
        self.model = predictor.model.eval().to(self.device)
        self._pixels = self.rule.pixels()
        if self.rule.crop:  # the first pass is slow, and shows whether the model works
            blank = torch.zeros(3, self.rule.crop, self.rule.crop, dtype=torch.uint8)
            for answer in self.compute([Task(kind, blank) for kind in FUNCTIONS]):
                if isinstance(answer, Exception):
                    raise answer

    def read(self, data: bytes, name: str, kind: str) -> Task:
        """Decode an image file and bring it to the size that the model sees.

        Raises:
            ImageTooLargeError: if it has too many pixels, or would have.
            ImageError: if it cannot be decoded.

        >>> engine = Engine(Predictor("resnet18_isqrt.digits"), "digits")
        >>> engine.read(b"GIF89a", "cat.gif", "predict")
        Traceback (most recent call last):
        gcpzoo.data.images.ImageError: cannot read image cat.gif: ...
        """
        return Task(kind, served_pixels(self.rule, self._pixels, decode_image(data, name), name))

    def compute(self, tasks: Sequence[Task]) -> list[Tensor | Exception]:
        """Answer each task by logits or a vector; one whose values are not finite gets an error."""
        found: dict[int, Tensor | Exception] = {}
        for kind in dict.fromkeys(task.kind for task in tasks):
            for at, pixels in collate([(i, task.pixels) for i, task in enumerate(tasks) if task.kind == kind]).groups:
                found |= zip(at, compute(self.model, FUNCTIONS[kind], self.rule, pixels, self.device))
        for i, value in found.items():
            if isinstance(value, Tensor) and not value.isfinite().all():
                found[i] = ZooError("the model's answer is not finite: its weights are damaged")
        return [found[i] for i in range(len(tasks))]

    def answer(self, kind: str, name: str, values: Tensor, top: int) -> dict[str, Any]:
        """Give plain JSON values for what :meth:`compute` found.

        >>> engine = Engine(Predictor("resnet18_isqrt.digits"), "digits")
        >>> engine.answer("predict", "3.png", torch.eye(10)[3], 1)["classes"][0]["class"]
        '3'
        """
        if kind == "embed":
            return {"path": name, "vector": values.tolist()}
        return Answer(name, self.predictor.classes(values[None], top)[0]).to_dict()

    def about(self) -> dict[str, Any]:
        """Describe the model: its record, classes and preprocessing.

        >>> Engine(Predictor("resnet18_isqrt.digits"), "digits").about()["num_features"]
        2080
        """
        record, named = self.model.record, zip(self.predictor.names, self.predictor.descriptions)
        return {
            "model": self.name,
            **(record.about() | {"verification": record.status} if record else {}),
            "config": dict(self.model.config),
            "preprocessing": self.rule.to_dict(),
            "num_features": self.model.num_features,
            "num_classes": self.model.num_classes,
            "classes": [{"class": name, "description": text} for name, text in named],
        }

"""Whether two networks give the same answers: on real images, in probabilities, decisions and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcpzoo.data.digits import Digits
from gcpzoo.data.images import read_image
from gcpzoo.errors import ZooError
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.preprocessing import Preprocessing

BATCH = 32
DIGITS = 64


@dataclass(frozen=True)
class CheckImages:
    """Images as a network sees them before the normalization, with the labels that are known.

    Attributes:
        preprocessing: resize and crop.
        images: files, or Pillow images.
        labels: index of each image's class, or ``None`` where it is not known.
        source: what they are, for people.

    >>> import gcpzoo
    >>> images = CheckImages.digits(gcpzoo.load("resnet18_isqrt.digits"))
    >>> next(images.batches()).shape, images.labels[:3]
    (torch.Size([32, 3, 32, 32]), [1, 4, 8])
    """

    preprocessing: Preprocessing
    images: Sequence[Any]
    labels: Sequence[int | None]
    source: str

    @classmethod
    def digits(cls, model: GCPNet) -> CheckImages:
        """Take the test split's first 64 handwritten digits, all 360 for a model that knows digits.

        >>> import gcpzoo
        >>> len(CheckImages.digits(gcpzoo.load("resnet18_isqrt.digits")).images)
        360
        """
        data = Digits()
        index = data.index()
        known = model.class_names == index.class_names
        samples = index.splits["test"][: None if known else DIGITS]
        read = data.reader(train=False)
        images = [read(image) for image, _ in samples]
        labels = [label if known else None for _, label in samples]
        return cls(model.preprocessing or Preprocessing(), images, labels, "handwritten digits")

    @classmethod
    def files(cls, model: GCPNet, paths: Sequence[str]) -> CheckImages:
        """Take image files; the folder of a file is its label where it is the name of a class.

        Raises:
            ZooError: if there is none.

        >>> import gcpzoo
        >>> CheckImages.files(gcpzoo.load("resnet18_isqrt.digits"), ["test/7/a.png", "b.png"]).labels
        [7, None]
        """
        if not paths:
            raise ZooError("there must be at least one image to check, got none")
        index = {name: i for i, name in enumerate(model.class_names or [])}
        labels = [index.get(Path(path).absolute().parent.name) for path in paths]
        return cls(model.preprocessing or Preprocessing(), list(paths), labels, "images given")

    def at_most(self, number: int) -> CheckImages:
        """Take so many images at most, at equal distances, so that all folders are represented.

        >>> import gcpzoo
        >>> images = CheckImages.digits(gcpzoo.create_model("resnet18", "gap", 3, until="layer1"))
        >>> len(images.at_most(40).images), len(images.at_most(64).images)
        (40, 64)
        """
        n = len(self.images)
        kept = range(n) if n <= number else [i * n // number for i in range(number)]
        return replace(self, images=[self.images[i] for i in kept], labels=[self.labels[i] for i in kept])

    def batches(self) -> Iterator[Tensor]:
        """Yield uint8 ``(B, 3, h, w)``, 32 images at most.

        Raises:
            ImageError: if a file cannot be read.

        >>> import gcpzoo
        >>> images = CheckImages.digits(gcpzoo.create_model("resnet18", "gap", 3, until="layer1"))
        >>> [tuple(batch.shape) for batch in images.batches()]
        [(32, 3, 224, 224), (32, 3, 224, 224)]
        """
        pixels = self.preprocessing.pixels()
        for start in range(0, len(self.images), BATCH):
            part = self.images[start : start + BATCH]
            yield torch.stack([pixels(read_image(i) if isinstance(i, str) else i) for i in part])


@dataclass(frozen=True)
class Agreement:
    """How far two networks agree on the same images.

    Attributes:
        images: number of images.
        logits: largest difference of a logit.
        probabilities: largest difference of a probability.
        same: number of images that get the same class.
        labelled: number of images whose class is known.
        before, after: shares of these that the first and the second network get right; ``None`` without labels.

    >>> a, b = torch.tensor([[2.0, 0.0], [0.0, 0.1]]), torch.tensor([[2.0, 0.0], [0.2, 0.1]])
    >>> agreement = Agreement.of(a, b, [0, 1])
    >>> agreement.same, agreement.before, agreement.after
    (1, 1.0, 0.5)
    """

    images: int
    logits: float
    probabilities: float
    same: int
    labelled: int = 0
    before: float | None = None
    after: float | None = None

    @classmethod
    def of(cls, first: Tensor, second: Tensor, labels: Sequence[int | None]) -> Agreement:
        """Compare logits ``(N, classes)``.

        Raises:
            ZooError: if the second are not all finite.

        >>> Agreement.of(torch.zeros(1, 2), torch.tensor([[torch.nan, 0.0]]), [None])
        Traceback (most recent call last):
        gcpzoo.errors.ZooError: the exported network gives values that are not finite: export in float32
        """
        if not second.isfinite().all():
            raise ZooError("the exported network gives values that are not finite: export in float32")
        p, q = (logits.double().softmax(1) for logits in (first, second))
        decisions = [logits.argmax(1) for logits in (first, second)]
        known = [i for i, label in enumerate(labels) if label is not None]
        truth = torch.tensor([labels[i] for i in known])
        shares = [float((d[known] == truth).double().mean()) if known else None for d in decisions]
        return cls(
            len(first),
            float((first - second).abs().max()),
            float((p - q).abs().max()),
            int((decisions[0] == decisions[1]).sum()),
            len(known),
            *shares,
        )


@torch.no_grad()
def logits_of(network: Callable[[Tensor], Tensor], images: CheckImages) -> Tensor:
    """Compute the logits ``(N, classes)`` of all images.

    >>> import gcpzoo
    >>> images = CheckImages.digits(gcpzoo.create_model("resnet18", "gap", 3, until="layer1"))
    >>> logits_of(lambda x: x.float().mean((2, 3)), images).shape
    torch.Size([64, 3])
    """
    return torch.cat([network(batch) for batch in images.batches()])


def onnx_network(path: str | Path) -> Callable[[Tensor], Tensor]:
    """Give an ONNX file as a function of a batch, computed by onnxruntime on the CPU.

    >>> onnx_network("absent.onnx")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: there is no file 'absent.onnx'
    """
    if not Path(path).is_file():
        raise ZooError(f"there is no file {str(path)!r}")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: torch.from_numpy(session.run(None, {name: batch.numpy()})[0])

"""A network over many images: the one pass behind predictions, embeddings and the features of probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gcpzoo.data.bulk import BATCH, read_batches
from gcpzoo.data.images import read_image
from gcpzoo.data.loading import cores
from gcpzoo.errors import ZooError
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.models.surgery import evaluating

Function = Callable[[GCPNet, Tensor], Tensor]
"""A network and its normalized input ``(B, 3, h, w)`` to one vector an image, ``(B, D)``."""


class Outputs(NamedTuple):
    """What became of consecutive images.

    Attributes:
        values: a float32 vector ``(D,)`` on the CPU for each image that could be read, by its position.
        faults: why an image could not be, by its position.

    >>> Outputs({0: torch.zeros(3)}, {1: "cannot read image"}).faults
    {1: 'cannot read image'}
    """

    values: dict[int, Tensor]
    faults: dict[int, str]


def logits(model: GCPNet, x: Tensor) -> Tensor:
    """Answer images by their logits ``(B, num_classes)``.

    >>> from gcpzoo.models import create_model
    >>> logits(create_model("resnet18", "gap", 3, until="layer1").eval(), torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 3])
    """
    answer: Tensor = model(x)
    return answer


def vectors(model: GCPNet, x: Tensor) -> Tensor:
    """Answer images by what the classifier sees, ``(B, num_features)``: the head's vector, after its root.

    >>> from gcpzoo.models import create_model
    >>> vectors(create_model("resnet18", "isqrt", 3, dim=8, until="layer1").eval(), torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 36])
    """
    return model.forward_head(model.forward_features(x), pre_logits=True)


def over_images(
    model: GCPNet,
    function: Function,
    images: Sequence[Any],
    *,
    read: Callable[[Any], Any] = read_image,
    rule: Preprocessing | None = None,
    views: str = "single",
    batch_size: int = BATCH,
    workers: int | None = None,
    device: str | None = None,
) -> Iterator[Outputs]:
    """Compute a vector for each image, in batches, while worker processes read the next ones.

    The network works in eval mode; its mode and its device are restored at the end.

    Args:
        model: the network.
        function: what to compute of it, e.g. :func:`logits`; averaged over the views of an image.
        images: what ``read`` takes, such as the paths of files.
        read: the reader; by default the exact one of files.
        rule: the preprocessing; null: the model's own.
        views: ``single``, ``mirror`` or ``ten_crop``.
        batch_size: images that the network sees at a time, each view counted.
        workers: number of processes that read images; null: one for each core, at most 8, and none for a single batch,
            or where the network needs both of two cores.
        device: ``cpu``, ``cuda``, … or ``auto``; null: where the model is.

    Raises:
        ZooError: if an argument cannot work, the memory does not suffice, or a value is not finite.

    >>> from PIL import Image
    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "gap", 3, until="layer1")
    >>> outputs, = over_images(model, vectors, [24, 32], read=lambda side: Image.new("RGB", (side, side)))
    >>> outputs.values[1].shape
    torch.Size([64])
    """
    rule = rule or model.preprocessing or Preprocessing()
    place = next(model.parameters()).device
    target = place if device is None else choose_device(device)
    count = {"single": 1, "mirror": 2, "ten_crop": 10}.get(views, 1)
    size = max(1, batch_size // count) if batch_size > 0 else batch_size
    if workers is None and target.type == "cpu" and cores() <= 2:
        workers = 0
    batches = read_batches(images, rule.pixels(views), read, size, workers)
    with _at_work(model, target):
        for batch in batches:
            values: dict[int, Tensor] = {}
            for at, pixels in batch.groups:
                values |= zip(at, compute(model, function, rule, pixels, target))
            values = dict(sorted(values.items()))
            for i, value in values.items():
                if not value.isfinite().all():
                    name = images[i] if isinstance(images[i], str) else f"image {i}"
                    raise ZooError(f"the model answers {name} with values that are not finite: its weights are damaged")
            yield Outputs(values, batch.faults)


@torch.inference_mode()  # around the forward pass alone: around a generator it would reach whoever takes its values
def compute(model: GCPNet, function: Function, rule: Preprocessing, pixels: Tensor, device: torch.device) -> Tensor:
    """Compute the vectors ``(n, D)`` of one batch, as float32 on the CPU; the network is in eval mode on ``device``.

    Args:
        model: the network.
        function: what to compute of it.
        rule: the preprocessing, which normalizes.
        pixels: uint8 ``(n, 3, h, w)``, or ``(n, V, 3, h, w)``, whose views are averaged.
        device: where the network is.

    Raises:
        ZooError: if the memory does not suffice.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "gap", 3, until="layer1").eval()
    >>> pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    >>> compute(model, logits, Preprocessing(), pixels, torch.device("cpu")).shape
    torch.Size([2, 3])
    """
    count = pixels.shape[1] if pixels.ndim == 5 else 1
    try:
        pixels = pixels.to(device, non_blocking=True)
        x = rule.normalize(pixels.flatten(0, 1) if pixels.ndim == 5 else pixels)
        y = function(model, x).float()
        return (y.unflatten(0, (-1, count)).mean(1) if count > 1 else y).cpu()
    except torch.OutOfMemoryError:
        raise ZooError(f"{device} has too little memory for {len(pixels)} images at a time: lower batch_size") from None


@contextmanager
def _at_work(model: GCPNet, device: torch.device) -> Iterator[None]:
    """Have the network in eval mode on a device, and as it was afterwards."""
    place = next(model.parameters()).device
    former = [(p, p.data) for p in model.backbone.parameters() if p.ndim == 4]
    try:
        model.to(device)
        if device.type == "cpu":
            model.backbone.to(memory_format=torch.channels_last)  # a fifth faster: convolutions need no other order
        with evaluating(model):
            yield
    finally:
        model.to(place)
        if device.type == "cpu":
            for p, data in former:
                p.data = data.to(place)


def choose_device(name: str = "auto") -> torch.device:
    """Give the device of a name; ``auto`` is a GPU where there is one.

    Raises:
        ZooError: if there is no such device on this machine.

    >>> choose_device("cpu")
    device(type='cpu')
    >>> choose_device("gpu")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: device must be auto, cpu, cuda or another of torch's, got 'gpu'
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ZooError(f"device must be auto, cpu, cuda or another of torch's, got {name!r}") from None
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["it does not work"])[0]
        raise ZooError(f"device {name!r} cannot be used here: {reason}; 'auto' takes what there is") from None
    return device

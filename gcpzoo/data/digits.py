"""The handwritten digits that ship inside scikit-learn: real images without a download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from gcpzoo.data.base import ImageDataModule, Index
from gcpzoo.data.splits import hold_out
from gcpzoo.data.transforms import Augment
from gcpzoo.models.preprocessing import Preprocessing


def _same(image: Tensor) -> Tensor:
    return image


def _to_pil(image: Tensor) -> Image.Image:
    return F.to_pil_image(image)


class Digits(ImageDataModule):
    """1,797 handwritten digits of 8×8 pixels, as RGB images enlarged to ``image_size``: 1,437 to train, 360 to test.

    The test split is scikit-learn's stratified one with ``random_state=0``, so that figures compare; ``seed`` changes
    only a held-out validation split. No flips: a mirrored digit is another sign.

    Args:
        workers: number of processes that transform images, which are in memory already.
        augment: augmentation of the training images.

    Source: scikit-learn's ``load_digits``, the test part of UCI's "Optical Recognition of Handwritten Digits".

    >>> data = Digits(image_size=16)
    >>> data.num_classes, data.preprocessing.resize
    (10, (16, 16))
    """

    default_size = 32

    def __init__(
        self,
        workers: int = 0,
        augment: Augment = Augment(crop="center", flip=0.0),  # noqa: B008
        **kwargs: Any,
    ) -> None:
        super().__init__(workers=workers, augment=augment, **kwargs)

    @staticmethod
    def rule(size: int) -> Preprocessing:
        """Enlarge to a square without a crop.

        >>> Digits.rule(32).crop is None
        True
        """
        return Preprocessing(resize=(size, size), crop=None)

    def reader(self, train: bool) -> Callable[[Any], Any]:
        """Give tensors for training and Pillow images for evaluation, as the readers of files do.

        >>> import torch
        >>> Digits().reader(train=False)(torch.zeros(1, 8, 8, dtype=torch.uint8)).size
        (8, 8)
        """
        return _same if train else _to_pil

    def index(self) -> Index:
        """List the images, uint8 ``(1, 8, 8)``, with their labels.

        >>> image, label = Digits().index().splits["test"][0]
        >>> image.shape, label
        (torch.Size([1, 8, 8]), 1)
        """
        from sklearn.datasets import load_digits

        digits = load_digits()
        grey = torch.from_numpy(digits.images * 255 / 16).round().to(torch.uint8)  # 0…16
        names = [str(name) for name in digits.target_names]
        samples = [(image[None], int(label)) for image, label in zip(grey, digits.target)]
        train, test = hold_out(samples, names, fraction=0.2, seed=0)
        return Index(names, {"train": train, "test": test})

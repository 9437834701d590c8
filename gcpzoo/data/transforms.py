"""Training transforms on uint8 tensors: crop, flip, and the stronger augmentations of the newer recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn
from torchvision.transforms import v2

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.models.preprocessing import Preprocessing, ToRGB

CROPS = ("random_resized", "random", "center")


@dataclass(frozen=True)
class Augment:
    """What training images go through; the defaults are ImageNet's.

    Args:
        crop: ``random_resized``: a box of random area and aspect ratio, resized (ImageNet); ``random``: the
            evaluation's resize, then a crop at a random place; ``center``: the evaluation's own resize and crop
            (fine-grained papers).
        scale: smallest and largest area of ``random_resized``, as a share of the image.
        ratio: smallest and largest width/height of ``random_resized``.
        flip: probability of a horizontal flip.
        jitter: brightness, contrast and saturation change by up to this share each; 0: not at all.
        randaugment: magnitude of RandAugment with two operations, 9 in the DeiT recipe; 0: none.
        erasing: probability that a random box is overwritten with the mean color.
    """

    crop: Literal["random_resized", "random", "center"] = "random_resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.0
    randaugment: int = 0
    erasing: float = 0.0

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise unknown_name("augment.crop", self.crop, CROPS)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ZooError(f"augment.scale must be two shares, 0 < smallest <= largest <= 1, got {list(self.scale)}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ZooError(f"augment.ratio must be two ratios, 0 < smallest <= largest, got {list(self.ratio)}")
        for name in ("flip", "jitter", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ZooError(f"augment.{name} must lie between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.randaugment <= 30:
            raise ZooError(f"augment.randaugment must be a magnitude from 0 to 30, got {self.randaugment}")

    def transform(self, preprocessing: Preprocessing) -> v2.Transform:
        """uint8 ``(3, H, W)`` or a Pillow image to uint8 ``(3, h, w)`` of the size that ``preprocessing`` gives."""
        steps: list[nn.Module] = [ToRGB(), *self._crop(preprocessing), v2.PILToTensor()]
        if self.flip:
            steps.append(v2.RandomHorizontalFlip(self.flip))
        if self.randaugment:
            steps.append(v2.RandAugment(num_ops=2, magnitude=self.randaugment))
        if self.jitter:
            steps.append(v2.ColorJitter(self.jitter, self.jitter, self.jitter))
        if self.erasing:
            mean = [round(255 * m) for m in preprocessing.mean]
            steps.append(v2.RandomErasing(self.erasing, value=mean))
        return v2.Compose(steps)

    def _crop(self, preprocessing: Preprocessing) -> list[nn.Module]:
        size = output_size(preprocessing)
        interpolation = v2.InterpolationMode(preprocessing.interpolation)
        if self.crop == "random_resized":
            return [v2.RandomResizedCrop(size, self.scale, self.ratio, interpolation, antialias=True)]
        resize, crop = preprocessing.resize, preprocessing.crop
        steps: list[nn.Module] = []
        if resize is not None:
            sides = [resize] if isinstance(resize, int) else list(resize)
            steps.append(v2.Resize(sides, interpolation, antialias=True))
        if crop is not None:
            if self.crop == "center":
                steps.append(v2.CenterCrop([crop, crop]))
            else:
                steps.append(v2.RandomCrop([crop, crop], pad_if_needed=True))
        return steps


def output_size(preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width in pixels of what comes out.

    Raises:
        ZooError: it depends on the image, so that images cannot form a batch.
    """
    if preprocessing.crop is not None:
        return preprocessing.crop, preprocessing.crop
    if isinstance(preprocessing.resize, tuple):
        return preprocessing.resize
    raise ZooError(
        "images of different sizes cannot form a batch: set preprocessing.crop, or resize to [height, width]"
    )

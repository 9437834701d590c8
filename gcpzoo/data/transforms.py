"""Augmentation of training images: crop, flip, and the stronger transforms of newer recipes, on uint8 tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.models.preprocessing import Preprocessing, Resize, ToRGB

CROPS = ("random_resized", "random", "center")
ERASING_MODES = ("mean", "pixel")
STRONGEST = 9.999  # at 10 timm posterizes to 0 bits, a black image, which Pillow 13 refuses


@dataclass(frozen=True)
class Augment:
    """Augmentation of the training images; the defaults are ImageNet's.

    Crops and resizes use the interpolation of the preprocessing.

    Args:
        crop: ``random_resized``: a box of random area and aspect ratio, resized (ImageNet); ``random``: the
            evaluation's resize, then a crop at a random place; ``center``: the evaluation's resize and crop
            (fine-grained papers).
        scale: smallest and largest area of ``random_resized``, as a share of the image.
        ratio: smallest and largest width/height of ``random_resized``.
        flip: probability of a horizontal flip.
        jitter: brightness, contrast and saturation change by up to this share each; 0: not at all.
        randaugment: magnitude of :class:`RandAugment`, 1 to 10, 9 in the DeiT recipe; 0: none.
        erasing: probability that a random box is overwritten.
        erasing_mode: with what: ``mean``: the mean color; ``pixel``: normal noise for each pixel, as in the DeiT recipe
            (see :class:`NoiseErasing`).

    Raises:
        ZooError: if a value cannot work.

    >>> import torch
    >>> transform = Augment(randaugment=9, erasing=0.25, erasing_mode="pixel").transform(Preprocessing())
    >>> transform(torch.zeros(3, 300, 400, dtype=torch.uint8)).shape
    torch.Size([3, 224, 224])
    """

    crop: Literal["random_resized", "random", "center"] = "random_resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.0
    randaugment: int = 0
    erasing: float = 0.0
    erasing_mode: Literal["mean", "pixel"] = "mean"

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise unknown_name("augment.crop", self.crop, CROPS)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ZooError(f"augment.scale must be two numbers, 0 < smallest <= largest <= 1, got {list(self.scale)}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ZooError(f"augment.ratio must be two numbers, 0 < smallest <= largest, got {list(self.ratio)}")
        for name in ("flip", "jitter", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ZooError(f"augment.{name} must be between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.randaugment <= 10:
            raise ZooError(f"augment.randaugment must be a magnitude from 0 to 10, got {self.randaugment}")
        if self.erasing_mode not in ERASING_MODES:
            raise unknown_name("augment.erasing_mode", str(self.erasing_mode), ERASING_MODES)

    def transform(self, preprocessing: Preprocessing) -> v2.Transform:
        """Build the transform of uint8 ``(3, H, W)`` or a Pillow image to uint8 of the size that evaluation sees.

        >>> import torch
        >>> transform = Augment(crop="center", flip=0).transform(Preprocessing(resize=36, crop=32))
        >>> transform(torch.zeros(3, 48, 64, dtype=torch.uint8)).shape
        torch.Size([3, 32, 32])
        """
        steps: list[nn.Module] = [ToRGB(), *self._crop(preprocessing), v2.PILToTensor()]
        if self.flip:
            steps.append(v2.RandomHorizontalFlip(self.flip))
        if self.randaugment:
            steps.append(RandAugment(self.randaugment, preprocessing))
        if self.jitter:
            steps.append(v2.ColorJitter(self.jitter, self.jitter, self.jitter))
        if self.erasing:
            if self.erasing_mode == "pixel":
                steps.append(NoiseErasing(self.erasing, preprocessing))
            else:
                steps.append(v2.RandomErasing(self.erasing, value=list(mean_color(preprocessing))))
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
            steps.append(Resize(sides, interpolation, antialias=True))
        if crop is not None:
            if self.crop == "center":
                steps.append(v2.CenterCrop([crop, crop]))
            else:
                steps.append(v2.RandomCrop([crop, crop], pad_if_needed=True))
        return steps


class RandAugment(nn.Module):
    """timm's RandAugment ``rand-mM-mstd0.5-inc1`` on a uint8 image ``(3, H, W)``, as in the DeiT recipe with M = 9.

    Two of 15 operations, each applied with probability 0.5 at a strength drawn from a normal distribution around M
    (standard deviation 0.5, below 10). At M = 9 images rotate by 27°, shear by 0.27, move by 0.405 of their side and
    change brightness, color, contrast and sharpness by 0.81. The transform is timm's own, with the mean color as fill
    and the interpolation of the preprocessing. torchvision's RandAugment is another one: it counts magnitudes to 30
    (9 rotates by 9°), always applies both operations at a fixed strength, and lacks Invert and SolarizeAdd.

    It draws from Python's and NumPy's random state, which ``seed_everything`` and the DataLoader's workers seed.

    Args:
        magnitude: M, 1 to 10.
        preprocessing: gives the mean color and the interpolation.

    >>> import torch
    >>> image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    >>> RandAugment(9, Preprocessing())(image).dtype
    torch.uint8
    """

    def __init__(self, magnitude: int, preprocessing: Preprocessing) -> None:
        from timm.data import str_to_pil_interp  # a quarter of a second that other data does not pay
        from timm.data.auto_augment import rand_augment_transform

        super().__init__()
        self.magnitude = magnitude
        interpolation = str_to_pil_interp(preprocessing.interpolation)
        options = {"img_mean": mean_color(preprocessing), "interpolation": interpolation, "magnitude_max": STRONGEST}
        self.augment = rand_augment_transform(f"rand-m{magnitude}-mstd0.5-inc1", options)

    def forward(self, image: Tensor) -> Tensor:
        pixels: Image.Image = F.to_pil_image(image)
        return F.pil_to_tensor(self.augment(pixels))

    def extra_repr(self) -> str:
        return f"magnitude={self.magnitude}"


class NoiseErasing(v2.RandomErasing):
    """Overwrite a random box of a uint8 image with normal noise for each pixel and channel.

    The noise has the mean and standard deviation of the normalization, so that it is N(0, 1) after it. timm's mode
    ``pixel`` of the DeiT recipe does this to normalized images; on uint8 the values are rounded and clipped to 0…255.

    Args:
        p: probability that an image is changed.
        preprocessing: gives mean and standard deviation.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    >>> changed = (NoiseErasing(1.0, Preprocessing())(white) != white).any(0)
    >>> 0 < changed.float().mean() < 0.4
    tensor(True)
    """

    def __init__(self, p: float, preprocessing: Preprocessing) -> None:
        super().__init__(p, value=0)
        self.mean, self.std = preprocessing.mean, preprocessing.std

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the box as torchvision does, and the noise that fills it.

        >>> _ = torch.manual_seed(0)
        >>> box = NoiseErasing(1.0, Preprocessing()).make_params([torch.zeros(3, 32, 32, dtype=torch.uint8)])
        >>> box["v"].shape == (3, box["h"], box["w"])
        True
        """
        params: dict[str, Any] = super().make_params(flat_inputs)
        if params["v"] is not None:
            mean, std = (torch.tensor(value)[:, None, None] for value in (self.mean, self.std))
            noise = mean + std * torch.randn(3, params["h"], params["w"])
            params["v"] = (255 * noise).round().clamp(0, 255).to(torch.uint8)
        return params


def mean_color(preprocessing: Preprocessing) -> tuple[int, ...]:
    """Give the color 0…255 that the normalization brings to zero.

    >>> mean_color(Preprocessing())
    (124, 116, 104)
    """
    return tuple(round(255 * value) for value in preprocessing.mean)


def output_size(preprocessing: Preprocessing) -> tuple[int, int]:
    """Give the height and width in pixels of preprocessed images.

    Raises:
        ZooError: if they depend on the image: such images cannot form a batch.

    >>> output_size(Preprocessing(resize=256, crop=224))
    (224, 224)
    """
    if preprocessing.crop is not None:
        return preprocessing.crop, preprocessing.crop
    if isinstance(preprocessing.resize, tuple):
        return preprocessing.resize
    raise ZooError(
        "images of different sizes cannot form a batch; set preprocessing.crop, or resize to [height, width]"
    )

"""From an image to the tensor that a model sees: plain numbers, stored with every checkpoint."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.limits import RESIZED_PIXELS

VIEWS = ("single", "mirror", "ten_crop")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
LIMITS = {"resize": (1, 16384), "crop": (1, 8192), "mean": (-1000, 1000), "std": (1e-6, 1000)}
"""Least and most of each value. The customary resize of a crop is 8/7 of it, hence the larger limit."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow image to an upright one of mode RGB.

    The EXIF orientation is applied, as viewers do (the plain loaders of torchvision and timm ignore it). Transparent
    pixels become white, grey is repeated, 16 bits keep their upper 8, 32-bit and float values are clipped to 0…255.

    >>> to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if _turned(image):
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode in ("I", "F"):
        image = image.convert("L")
    return image.convert("RGB")


class ToRGB(nn.Module):
    """Convert Pillow images by :func:`to_rgb`; repeat the single channel of uint8 tensors ``(…, 1, H, W)``.

    >>> ToRGB()(torch.zeros(1, 4, 4, dtype=torch.uint8)).shape
    torch.Size([3, 4, 4])
    """

    def forward(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        if isinstance(image, Image.Image):
            return to_rgb(image)
        if not isinstance(image, Tensor) or image.dtype != torch.uint8:
            kind = f"a {image.dtype} tensor" if isinstance(image, Tensor) else type(image).__name__
            raise ZooError(f"image must be a Pillow image or a uint8 tensor with values 0…255, got {kind}")
        if image.ndim < 3 or image.shape[-3] not in (1, 3):
            raise ZooError(f"image must have the shape (…, 3, H, W) or (…, 1, H, W), got {tuple(image.shape)}")
        return image if image.shape[-3] == 3 else image.expand(*image.shape[:-3], 3, *image.shape[-2:])


class Resize(v2.Resize):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's, which refuses an image that is so thin that its longer side would fill the memory.

    Raises:
        ZooError: if the image would have too many pixels.

    >>> Resize([256])(Image.new("RGB", (2, 8))).size
    (256, 1024)
    >>> Resize([256])(Image.new("RGB", (1, 8000)))
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: resized from 1×8,000 to 256×2,048,000 pixels, more than 67,108,864
    """

    def forward(self, *inputs: Any) -> Any:
        height, width = F.get_size(inputs[0])
        if len(self.size) == 1 and (why := too_thin(width, height, self.size[0])):
            raise ZooError(why)
        return super().forward(*inputs)


def too_thin(width: int, height: int, side: int) -> str | None:
    """Say why an image whose shorter side becomes ``side`` would fill the memory; ``None``: it does not.

    >>> too_thin(8000, 1, 256)
    'resized from 8,000×1 to 2,048,000×256 pixels, more than 67,108,864'
    """
    short = min(height, width)
    if side * side * max(height, width) <= short * max(RESIZED_PIXELS, 4 * side * side):
        return None
    new = f"{side * width // short:,}×{side * height // short:,}"
    return f"resized from {width:,}×{height:,} to {new} pixels, more than {RESIZED_PIXELS:,}"


class Views(nn.Module):
    """Take the views ``(V, 3, h, w)`` of a uint8 image ``(3, H, W)``: itself and its mirror image, or the ten crops.

    >>> Views("ten_crop", 4)(torch.zeros(3, 6, 6, dtype=torch.uint8)).shape
    torch.Size([10, 3, 4, 4])
    """

    def __init__(self, views: str, crop: int | None) -> None:
        super().__init__()
        self.views, self.crop = views, crop

    def forward(self, image: Tensor) -> Tensor:
        if self.views == "ten_crop":
            return torch.stack(F.ten_crop(image, [self.crop, self.crop]), dim=-4)
        return torch.stack([image, F.horizontal_flip(image)], dim=-4)

    def extra_repr(self) -> str:
        return f"{self.views}, crop={self.crop}"


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the network: resize, center crop, scale to 0…1, normalize.

    Args:
        resize: the shorter side in pixels, or ``(height, width)``, at most 16,384; ``None``: the image keeps its size.
        crop: side in pixels of the square central crop (smaller images get black borders), at most 8,192; ``None``: no
            crop.
        interpolation: of the resize, with antialiasing: ``bilinear``, ``bicubic``, or ``nearest``.
        mean: of each channel (red, green, blue), in units of the full scale; between -1000 and 1000.
        std: of each channel, in the same units; between 1e-6 and 1000.

    Raises:
        ZooError: if a value cannot work.

    >>> preprocessing = Preprocessing(resize=256, crop=224)
    >>> preprocessing.transform()(Image.new("RGB", (640, 480))).shape
    torch.Size([3, 224, 224])
    """

    resize: int | tuple[int, int] | None = 256
    crop: int | None = 224
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if isinstance(self.resize, list | tuple):
            if len(self.resize) != 2 or not all(map(_is_whole, self.resize)):
                raise ZooError(f"preprocessing: resize must be pixels, [height, width] or null, got {self.resize!r}")
            object.__setattr__(self, "resize", tuple(self.resize))
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, tuple) and not _is_whole(value):
                raise ZooError(f"preprocessing: {name} must be a whole number of pixels or null, got {value!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise unknown_name("interpolation", str(self.interpolation), INTERPOLATIONS)
        for name in ("mean", "std"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or len(value) != 3 or not all(_is_number(v) for v in value):
                raise ZooError(f"preprocessing: {name} must be three finite numbers (red, green, blue), got {value!r}")
            object.__setattr__(self, name, tuple(float(v) for v in value))
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else () if value is None else (value,)
            if not all(least <= v <= most for v in values):
                got = list(value) if isinstance(value, tuple) else value
                raise ZooError(f"preprocessing: {name} must be between {least} and {most}, got {got}")

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values, which :meth:`from_dict` takes back.

        >>> Preprocessing(resize=None, crop=32).to_dict()["crop"]
        32
        """
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Invert :meth:`to_dict`; missing values take their defaults.

        Raises:
            ZooError: if ``values`` is not a mapping, a key is unknown, or a value cannot work.

        >>> Preprocessing.from_dict({"resize": 36, "crop": 32}).interpolation
        'bilinear'
        """
        if not isinstance(values, Mapping):
            raise ZooError(f"preprocessing must be a mapping, got {values!r}")
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise unknown_name("preprocessing key", str(key), known)
        return cls(**values)

    def pixels(self, views: str = "single") -> v2.Transform:
        """Build all but the normalization: a Pillow image or uint8 tensor to uint8 ``(3, h, w)`` or ``(V, 3, h, w)``.

        >>> Preprocessing(resize=36, crop=32).pixels("mirror")(Image.new("RGB", (64, 48))).shape
        torch.Size([2, 3, 32, 32])
        """
        if views not in VIEWS:
            raise unknown_name("views", views, VIEWS)
        if views == "ten_crop" and self.crop is None:
            raise ZooError("ten_crop needs a preprocessing with a crop, got crop=None; use views='mirror', or set crop")
        steps: list[nn.Module] = [ToRGB()]
        if self.resize is not None:
            size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            steps.append(Resize(size, interpolation=v2.InterpolationMode(self.interpolation), antialias=True))
        if self.crop is not None and views != "ten_crop":
            steps.append(v2.CenterCrop([self.crop, self.crop]))
        steps.append(v2.PILToTensor())
        if views != "single":
            steps.append(Views(views, self.crop))
        return v2.Compose(steps)

    def misfit(self, width: int, height: int) -> str | None:
        """Say why an image of this size cannot be brought to the network's; ``None``: it can.

        >>> Preprocessing().misfit(640, 480), Preprocessing().misfit(1, 8000)
        (None, 'resized from 1×8,000 to 256×2,048,000 pixels, more than 67,108,864')
        """
        return too_thin(width, height, self.resize) if isinstance(self.resize, int) else None

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn uint8 ``(…, 3, h, w)`` on any device into float32: ``(pixels / 255 - mean) / std``.

        >>> half = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> half.normalize(torch.full((3, 1, 1), 255, dtype=torch.uint8)).flatten()
        tensor([1., 1., 1.])
        """
        scaled = F.to_dtype(pixels, torch.float32, scale=True)
        normalized: Tensor = F.normalize(scaled, list(self.mean), list(self.std), inplace=True)
        return normalized

    def transform(self, views: str = "single") -> v2.Transform:
        """Build the whole transform: a Pillow image of any mode, or a uint8 tensor, to a normalized float32 tensor.

        Args:
            views: ``single``: ``(3, h, w)``; ``mirror``: the crop and its mirror image, ``(2, 3, h, w)``; ``ten_crop``:
                the four corners, the center and their mirror images, ``(10, 3, h, w)``. Logits are averaged over views.

        >>> Preprocessing(resize=36, crop=32).transform()(Image.new("RGB", (64, 48))).dtype
        torch.float32
        """
        scale = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(self.mean), list(self.std))]
        return v2.Compose([*self.pixels(views).transforms, *scale])


def _turned(image: Image.Image) -> bool:
    try:
        return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)
    except (SyntaxError, ValueError, OSError, struct.error):  # a broken EXIF block does not make an image unreadable
        return False


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""Data modules: one benchmark, one file. All deliver uint8 images and normalize them on the device."""

from gcpzoo.data.aircraft import FGVCAircraft
from gcpzoo.data.base import ImageDataModule
from gcpzoo.data.cars import StanfordCars
from gcpzoo.data.cub import CUB200
from gcpzoo.data.digits import Digits
from gcpzoo.data.folder import ImageFolder
from gcpzoo.data.imagenet import ImageNet
from gcpzoo.data.images import ImageError
from gcpzoo.data.transforms import Augment

__all__ = [
    "CUB200",
    "Augment",
    "Digits",
    "FGVCAircraft",
    "ImageDataModule",
    "ImageError",
    "ImageFolder",
    "ImageNet",
    "StanfordCars",
]

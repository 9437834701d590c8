from .aircraft import FGVCAircraft
from .base import ImageDataModule
from .cars import StanfordCars
from .cub import CUB200
from .digits import Digits
from .folder import ImageFolder
from .imagenet import ImageNet
from .images import ImageError
from .transforms import Augment

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

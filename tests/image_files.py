"""Small images whose class can be learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def draw(path: Path, label: int, seed: int, size: int = 48) -> None:
    """A noisy image of stripes whose direction and color say its class."""
    rng = np.random.default_rng([label, seed])
    i, j = np.mgrid[:size, :size]
    wave = 0.5 + 0.5 * np.sin(0.5 * (i * np.cos(label) + j * np.sin(label)) + rng.uniform(0, 6))
    color = np.roll([1.0, 0.6, 0.3], label)
    pixels = 255 * np.clip(wave[..., None] * color + rng.normal(0, 0.05, (size, size, 3)), 0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def photo(width: int = 50, height: int = 40, seed: int = 0) -> Image.Image:
    """Smooth colors, so that resizing and JPEG mean something."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def write(root, names, width: int = 20, height: int = 16) -> None:
    """A small image under every name; the suffix gives the format."""
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(width, height, seed).save(path)


def truncate(path, keep: float = 0.6) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])

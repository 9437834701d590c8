"""The advice that ``gcpzoo fit FOLDER`` follows: which head at which rates, image size, epochs and batch.

Data, not code: what experience says is changed here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HeadAdvice:
    """A head at the rates that suit it.

    Attributes:
        label: what people read.
        model: options of the model.
        why: why this head.
        rates: the rates in words, and where they come from.

    >>> HEADS[CONTROL].model["head"]
    'gap'
    """

    label: str
    model: dict[str, Any]
    why: str
    rates: str


HEADS = {
    "gcp": HeadAdvice(
        "isqrt + mean",
        {
            "head": "isqrt",
            "dim": "auto",
            "fusion": "sum",
            "optimizer": {
                "head_lr_factor": 10.0,
                "classifier_lr_factor": 10.0,
                "lr_factors": {"first_classifier": 5.0},
            },
        },
        "the covariance and the mean, each with a classifier, their logits added; --compare measures what it gains",
        "reduction layer ×10, classifier ×10, the mean's classifier ×5: the best of those tried",
    ),
    "gap": HeadAdvice(
        "global average pooling",
        {"head": "gap", "dim": None, "optimizer": {"classifier_lr_factor": 5.0}},
        "the mean alone, the control of every covariance head",
        "classifier ×5, its own best: at ×10 it loses two points on textures with a frozen trunk",
    ),
}
DEFAULT, CONTROL = "gcp", "gap"
OTHER_HEAD = {"optimizer": {"head_lr_factor": 10.0, "classifier_lr_factor": 10.0}}
"""For a second-order head that the user names."""

BACKBONE = "mobilenet_v2_isqrt.grocery81"
"""Model whose backbone is taken where the user names none."""

COMMON: dict[str, Any] = {
    "seed_everything": 0,
    "model": {
        "label_smoothing": 0.1,
        "channels_last": True,
        "optimizer": {"name": "AdamW", "lr": 5.0e-4, "weight_decay": 0.01},
        "schedule": {"name": "cosine", "interval": "step"},
    },
    "data": {
        "class_path": "gcpzoo.data.ImageFolder",
        "init_args": {"augment": {"crop": "random_resized", "scale": [0.3, 1.0]}},
    },
}
IMAGE_SIZES = ((170, 224), (90, 160), (0, 128))
"""Median of the shorter sides in pixels, at least, and the size to train with; larger images than that cost time."""
LONG_ON_CPU = 15_000
"""Training images from which a CPU gets 160 pixels at most."""
EPOCHS = ((5_000, 5), (300, 10), (0, 20))
"""Training images, at least, and epochs."""
BATCHES = ((5_000, 32), (0, 16))
"""Training images, at least, and images of a batch."""
VAL_FRACTIONS = (0.1, 0.15, 0.2, 0.25, 0.3)
TEST_FRACTIONS = (0.2, 0.25, 0.3, 0.4, 0.5)
"""Shares to hold out: the first with which both parts have images of every class."""
IMBALANCE = 4
"""Ratio of the largest to the smallest class from which balancing is advised."""

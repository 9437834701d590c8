"""A model that is published again and again."""

from __future__ import annotations

from typing import Any

from gcpzoo import GCPNet
from gcpzoo.hub import Published, publish

ABOUT = {
    "data": "Three kinds of animals: photographs",
    "metrics": {"top1": 91.5, "top5": 100.0},
    "measured_by": "gcpzoo",
    "control": {"top1": 80.25},
    "recipe": "3 epochs of SGD",
    "seeds": [0],
    "caveats": ["it knows three animals"],
}


def published(model: GCPNet, repo: str = "owner/animals", **more: Any) -> Published:
    """Publish the model with what is known of it."""
    return publish(model, repo, licence="apache-2.0", about=ABOUT, **more)

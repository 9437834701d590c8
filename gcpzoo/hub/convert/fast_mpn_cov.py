"""fast-MPN-COV (github.com/jiangtaoxie/fast-MPN-COV, MIT): iSQRT-COV, CVPR 2018.

Its files come in two layouts: networks cut into ``features``, ``representation`` and ``classifier``, where the
features of a ResNet are numbered, and whole networks under torchvision's names.
"""

from __future__ import annotations

from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.heads.reduction import Reduction
from gcpzoo.hub.convert.common import RESNET, Renames, State, match, rename, renames, sizes

LOWER = ("15991845",)
"""SHA-256 of files whose classifier was trained on the lower triangle: mpncovresnet50-15991845.pth."""

REPRESENTATION = renames(Reduction.RELEASED_NAMES, theirs=r"representation\.", ours="head.reduction.")
CUT_RESNET: Renames = (
    (r"^features\.0\.", "backbone.conv1."),
    (r"^features\.1\.", "backbone.bn1."),
    (r"^features\.4\.", "backbone.layer1."),
    (r"^features\.5\.", "backbone.layer2."),
    (r"^features\.6\.", "backbone.layer3."),
    (r"^features\.7\.", "backbone.layer4."),
    (r"^features\.8\.", "head.reduction.0."),
    (r"^features\.9\.", "head.reduction.1."),
    *REPRESENTATION,
)
VGG: Renames = ((r"^features\.", "backbone.features."), *REPRESENTATION)


def convert(tensors: State, arch: str, head: str = "isqrt") -> tuple[dict[str, Any], State]:
    """Give the configuration and the renamed tensors of ``arch``.

    >>> import torch
    >>> config, state = convert({"fc.weight": torch.zeros(5, 512)}, "resnet18")
    >>> config["head"], list(state)
    ('gap', ['classifier.weight'])
    """
    name = match(
        r"(mpncov)?(resnet(?:18|34|50|101|152)|vgg(?:11|13|16|19)(?:_bn)?)",
        arch,
        "mpncovresnet50, mpncovresnet101, mpncovvgg16_bn, and resnet* and vgg* with its covariance pooling",
    )
    backbone = name[2]
    resnet = CUT_RESNET if "features.0.weight" in tensors else RESNET
    table = VGG if backbone.startswith("vgg") else resnet
    state = rename(tensors, table)
    config = {"backbone": backbone, "head": head, **sizes(state)}
    if config["dim"] is None:
        if name[1]:
            raise ZooError(f"these are not the tensors of {arch}: it has a reduction layer, and they have none")
        config["head"] = "gap"
    config["last_stride"] = 1 if name[1] or (backbone.startswith("vgg") and config["dim"]) else 2
    if config["head"] == "isqrt":
        config["head_args"] = {"iterations": 5}
    return config, state

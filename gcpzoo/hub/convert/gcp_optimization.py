"""GCP_Optimization (github.com/ZhangLi-CS/GCP_Optimization, no licence stated): GCP and GAP networks, CVPR 2020.

The reduction of its MobileNetV2 and ShuffleNetV2 ends in ReLU6. GCP ResNets keep the resolution in their last stage,
its GAP ResNets and the two light networks have their own strides.
"""

from __future__ import annotations

from typing import Any

from gcpzoo.heads.reduction import Reduction
from gcpzoo.hub.convert.common import RESNET, State, match, rename, renames, sizes

LIGHT = (
    (r"^(features|conv1|conv5|stage[2-4])\.", r"backbone.\1."),
    *renames(Reduction.RELEASED_NAMES, ours="head.reduction."),
    (r"^(classifier\.1|fc)\.", "classifier."),
)


def convert(tensors: State, arch: str) -> tuple[dict[str, Any], State]:
    """Give the configuration and the renamed tensors of ``arch``; the file tells whether it pools covariances.

    >>> import torch
    >>> config, state = convert({"fc.weight": torch.zeros(5, 512)}, "resnet18")
    >>> config["head"], list(state)
    ('gap', ['classifier.weight'])
    """
    match(
        r"resnet(18|34|50|101|152)(_mpncov)?(_\d+)?|mobilenet_v2(_mpncov)?(_\d+)?|shufflenet_v2_(mpncov_)?x\d_\d(_\d+)?",
        arch,
        "resnet18, resnet18_mpncov, resnet50_mpncov_128, mobilenet_v2, mobilenet_v2_mpncov, shufflenet_v2_mpncov_x1_0 "
        "and so on",
    )
    parts = arch.split("_")
    if parts[-1] in ("128", "160"):
        parts.pop()
    backbone = "_".join(p for p in parts if p != "mpncov")
    resnet = backbone.startswith("resnet")
    state = rename(tensors, RESNET if resnet else LIGHT)
    config: dict[str, Any] = {"backbone": backbone, "head": "isqrt", "head_args": {"iterations": 5}, **sizes(state)}
    if config["dim"] is None:
        config |= {"head": "gap", "head_args": {}}
    elif resnet:
        config["last_stride"] = 1
    else:
        config["head_args"]["reduction"] = "relu6"
    return config, state

"""pytorchcv (github.com/osmr/imgclsmob, MIT): iSQRT-COV-ResNets and their GAP counterparts under its own names.

Networks without the ``b`` stride in the first 1×1 convolution of a bottleneck instead of the 3×3.
"""

from __future__ import annotations

import re
from typing import Any

from gcpzoo.heads.reduction import Reduction
from gcpzoo.hub.convert.common import State, match, rename, renames, sizes

TABLE = (
    (r"^features\.init_block\.conv\.conv\.", "backbone.conv1."),
    (r"^features\.init_block\.conv\.bn\.", "backbone.bn1."),
    *renames(Reduction.RELEASED_NAMES, theirs=r"features\.", ours="head.reduction."),
    (r"^output\.", "classifier."),
)
UNIT = re.compile(r"features\.stage(\d)\.unit(\d+)\.(?:body\.conv(\d)|identity_conv)\.(conv|bn)\.(\w+)")


def convert(tensors: State, arch: str) -> tuple[dict[str, Any], State]:
    """Give the configuration and the renamed tensors of ``isqrtcovresnet*`` or ``resnet*``.

    >>> import torch
    >>> convert({"output.weight": torch.zeros(5, 2048)}, "resnet50b")[0]["backbone"]
    'resnet50'
    """
    name = match(
        r"(isqrtcov)?resnet(18|34|50b|101b|152b|50|101|152)",
        arch,
        "isqrtcovresnet18, 34, 50, 50b, 101, 101b, and resnet* of the same kinds",
    )
    depth = int(name[2].removesuffix("b"))
    state = {_unit(key): value for key, value in rename(tensors, TABLE).items()}
    config: dict[str, Any] = {"backbone": f"resnet{depth}", "head": "gap", **sizes(state)}
    if config["dim"]:
        config |= {"head": "isqrt", "head_args": {"iterations": 5}, "last_stride": 1}
    if depth >= 50 and not name[2].endswith("b"):
        config["blocks"] = {"stride_in_first": {}}
    return config, state


def _unit(key: str) -> str:
    """Rename ``features.stage2.unit1.body.conv3.bn.weight`` to ``backbone.layer2.0.bn3.weight``."""
    found = UNIT.fullmatch(key)
    if not found:
        return key
    stage, unit, conv, kind, tensor = found.groups()
    layer = f"{kind}{conv}" if conv else ("downsample.0" if kind == "conv" else "downsample.1")
    return f"backbone.layer{stage}.{int(unit) - 1}.{layer}.{tensor}"

"""GSoP (github.com/ZilinGao/Global-Second-order-Pooling-Convolutional-Networks, MIT), CVPR 2019.

GSoP-Net1 ends in average pooling, GSoP-Net2 in iSQRT-COV with 3 iterations; both keep the resolution in the last stage.
The file tells which of them it is, and which stages have blocks. The average and the maximum of the two attentions
have the same tensors: ``resnet50_maximum`` names the latter.
"""

from __future__ import annotations

import re
from typing import Any

from gcpzoo.blocks import GSoP
from gcpzoo.hub.convert.common import RESNET, State, match, rename, renames, sizes

TABLE = (*renames(GSoP.RELEASED_NAMES, theirs=r"(layer\d\.\d+)\.", ours=r"backbone.\1.gsop."), *RESNET)


def convert(tensors: State, arch: str) -> tuple[dict[str, Any], State]:
    """Give the configuration and the renamed tensors of ``resnet50`` or ``resnet101``.

    >>> import torch
    >>> convert({"fc.weight": torch.zeros(5, 2048)}, "resnet50")[0]["num_classes"]
    5
    """
    name = match(r".*?(resnet(?:18|34|50|101|152)).*", arch, "resnet50, resnet101, resnet50_maximum")
    state = rename(tensors, TABLE)
    config: dict[str, Any] = {"backbone": name[1], "head": "gap", "last_stride": 1, **sizes(state)}
    if config["dim"]:
        config |= {"head": "isqrt", "head_args": {"iterations": 3}}
    inside = [m for key in state if (m := re.fullmatch(r"backbone\.layer(\d)\.\d+\.gsop\.(\w+)\..*", key))]
    if inside:
        kinds = {m[2] for m in inside}
        attention = "channel" if "position" not in kinds else "position" if "channel" not in kinds else "average"
        if "first" in kinds:
            attention = "concatenation"
        elif attention == "average" and "max" in arch:
            attention = "maximum"
        reduce = next(v for k, v in state.items() if re.search(r"gsop\.(channel|position)\.reduce\.weight", k))
        stages = sorted({int(m[1]) for m in inside})
        config["blocks"] = {"gsop": {"stages": stages, "attention": attention, "attention_dim": len(reduce)}}
    return config, state

"""DropCov (github.com/mingzeG/DropCov, no licence stated), NeurIPS 2022: its ResNets.

Its transformers cannot be converted: their networks are the authors' own, and the released source lacks the files that
define them.
"""

from __future__ import annotations

from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.heads.dropcov import DropCov
from gcpzoo.hub.convert.common import RESNET, State, match, rename, renames, sizes

TABLE = (*RESNET, *renames(DropCov.RELEASED_NAMES, ours="head."))


def convert(tensors: State, arch: str) -> tuple[dict[str, Any], State]:
    """Give the configuration and the renamed tensors of ``resnet*_ACD``.

    >>> convert({}, "resnet7")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown architecture 'resnet7': this source has resnet18_ACD … resnet152_ACD
    """
    if arch.lower().startswith(("deit", "swin", "t2t", "vit")):
        raise ZooError(
            f"{arch}: DropCov's transformers cannot be converted: their networks are in neither torchvision nor timm, "
            "and the released source lacks the files that define them"
        )
    name = match(r"(resnet(?:18|34|50|101|152))(?:_ACD|_dropcov)?", arch, "resnet18_ACD … resnet152_ACD")
    state = rename(tensors, TABLE)
    config: dict[str, Any] = {"backbone": name[1], "head": "dropcov", **sizes(state)}
    config |= {"last_stride": 1, "head_args": {"parity": "released"}} if config["dim"] else {"head": "gap"}
    return config, state

"""DropCov (github.com/mingzeG/DropCov, no licence stated), NeurIPS 2022: its ResNets and its transformers.

The transformers are So-ViT's network with the head ``mgcrp``. Of the Swin-T with DropCov no code was released.
"""

from __future__ import annotations

from typing import Any

import torch

from gcpzoo.errors import ZooError
from gcpzoo.heads.dropcov import DropCov
from gcpzoo.heads.mgcrp import CrossCovariancePooling
from gcpzoo.hub.convert.common import RESNET, State, match, rename, renames, sizes
from gcpzoo.models.sovit import SoViT, sinusoids

TABLE = (*RESNET, *renames(DropCov.RELEASED_NAMES, ours="head."))
TRANSFORMERS = {
    "deit_drop_tiny": "sovit_drop_tiny",
    "deit_drop_small": "sovit_drop_small",
    "deit_drop_base": "sovit_drop_base",
    "t2t_vit_14": "sovit_drop_14",
}
TRANSFORMER_TABLE = (
    *renames(SoViT.RELEASED_NAMES, ours="backbone."),
    *renames(CrossCovariancePooling.RELEASED_NAMES, theirs=r"classifier\.", ours="head."),
    (r"^classifier\.visual_fc\.", "classifier."),
    (r"^classifier\.cls_fc\.", "first_classifier."),
)


def convert(tensors: State, arch: str) -> tuple[dict[str, Any], State]:
    """Give the configuration and the renamed tensors of ``resnet*_ACD``, ``Deit_drop_*`` or ``T2T_ViT_14``.

    >>> convert({}, "resnet7")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown architecture 'resnet7': this source has resnet18_ACD … resnet152_ACD, ...
    """
    if arch.lower() in TRANSFORMERS:
        return _transformer(tensors, TRANSFORMERS[arch.lower()])
    if arch.lower().startswith("swin"):
        raise ZooError(f"{arch} cannot be converted: its authors released no code of this network")
    known = "resnet18_ACD … resnet152_ACD, Deit_drop_Tiny, Deit_drop_Small, Deit_drop_Base, T2T_ViT_14"
    name = match(r"(resnet(?:18|34|50|101|152))(?:_ACD|_dropcov)?", arch, known)
    state = rename(tensors, TABLE)
    config: dict[str, Any] = {"backbone": name[1], "head": "dropcov", **sizes(state)}
    config |= {"last_stride": 1, "head_args": {"parity": "released"}} if config["dim"] else {"head": "gap"}
    return config, state


def _transformer(tensors: State, backbone: str) -> tuple[dict[str, Any], State]:
    """Read the sizes of the head off its tensors; leave out its unused third projection and the fixed positions."""
    state = rename(tensors, TRANSFORMER_TABLE)
    _check_positions(state.pop("pos_embed", None))
    config = {"backbone": backbone, "head": "mgcrp", "fusion": "sum", **sizes(state)}
    projection = state.get("head.projection.weight")
    if projection is None:
        raise ZooError("the file holds no classifier.representation.wr.weight: is it another architecture?")
    rows = len(projection) // 3  # heads · head_dim
    head_dim = state["classifier.weight"].shape[1] // max(rows, 1)
    state["head.projection.weight"] = projection[: 2 * rows]
    args = {"heads": rows // max(head_dim, 1), "head_dim": head_dim, "normalization": None}
    return {**config, "head_args": {**args, "token_dropout": 0.2, "dropout": 0.5}}, state


def _check_positions(positions: torch.Tensor | None) -> None:
    """Refuse positions that are not the fixed ones, which the network computes itself."""
    if positions is None:
        return
    if positions.ndim == 3 and len(positions) == 1:
        fixed = sinusoids(*positions.shape[1:])
        if torch.allclose(positions[0].float(), fixed, atol=1e-3):  # half precision is off by 5e-4
            return
    raise ZooError("the file's pos_embed is not the fixed sinusoidal one, which alone the network has")

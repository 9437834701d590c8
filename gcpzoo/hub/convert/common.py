"""What the converters share: reading, renaming, reading sizes off the tensors, the classifier's column order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.heads.reduction import Reduction
from gcpzoo.models.gcpnet import GCPNet
from gcpzoo.models.weights import misfit
from gcpzoo.models.weights import read_tensors as read_plain_tensors

State = dict[str, Tensor]
Renames = Sequence[tuple[str, str]]


def renames(table: Mapping[str, str], theirs: str = "", ours: str = "") -> Renames:
    """Rows for :func:`rename` from the ``RELEASED_NAMES`` of a class.

    Args:
        table: the authors' names of modules and parameters, and ours.
        theirs: pattern of what stands before them in the file.
        ours: what stands before them here; ``\\1`` and so on are groups of ``theirs``.

    >>> rows = renames({"eca.conv": "conv"}, theirs=r"(layer\\d)\\.", ours=r"backbone.\\1.")
    >>> list(rename({"layer1.eca.conv.weight": torch.zeros(1), "layer1.eca.conv2.weight": torch.zeros(1)}, rows))
    ['backbone.layer1.conv.weight', 'layer1.eca.conv2.weight']
    """
    return tuple((rf"^{theirs}{re.escape(name)}(?=\.|$)", ours + own) for name, own in table.items())


RESNET: Renames = (
    (r"^(conv1|bn1|layer[1-4])\.", r"backbone.\1."),
    *renames(Reduction.RELEASED_NAMES, ours="head.reduction."),
    (r"^fc\.", "classifier."),
)
"""A ResNet in torchvision's names with the reduction layer beside its stages."""


def read_tensors(file: Path) -> State:
    """Read the tensors of a file under their plain names: no wrapping dictionary, no ``module.`` of DataParallel.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "w.pth")
    ...     torch.save({"state_dict": {"features.module.0.bias": torch.zeros(2)}}, path)
    ...     read_tensors(path)
    {'features.0.bias': tensor([0., 0.])}
    """
    return {re.sub(r"(^|\.)module\.", r"\1", key): value for key, value in read_plain_tensors(file).items()}


def match(pattern: str, arch: str, known: str) -> re.Match[str]:
    """Match the whole name ``arch`` against ``pattern``.

    Raises:
        ZooError: if it does not match; the message says which names there are (``known``).

    >>> match(r"resnet(18|34)", "resnet18", "resnet18, resnet34")[1]
    '18'
    """
    found = re.fullmatch(pattern, arch)
    if not found:
        raise ZooError(f"unknown architecture {arch!r}: this source has {known}")
    return found


def rename(tensors: Mapping[str, Tensor], table: Renames) -> State:
    """Rename each tensor by the first row of ``table`` that matches it; keep the names that none matches.

    >>> list(rename({"fc.bias": torch.zeros(2), "other": torch.zeros(1)}, RESNET))
    ['classifier.bias', 'other']
    """
    renamed = {}
    for key, value in tensors.items():
        for pattern, replacement in table:
            new, hits = re.subn(pattern, replacement, key)
            if hits:
                key = new
                break
        renamed[key] = value
    return renamed


def sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read ``dim``, ``num_classes`` and ``hidden`` of a configuration from the shapes of the renamed tensors.

    >>> sizes({"head.reduction.0.weight": torch.zeros(8, 512, 1, 1), "classifier.weight": torch.zeros(5, 36)})
    {'num_classes': 5, 'dim': 8}
    """
    layers = [k for k in state if re.fullmatch(r"classifier(\.\d+)?\.weight", k)]
    if not layers:
        raise ZooError("the file holds no classifier under the name that this source gives it")
    layers.sort(key=lambda k: int(k.split(".")[1]) if k.count(".") == 2 else 0)
    config: dict[str, Any] = {"num_classes": len(state[layers[-1]])}
    if len(layers) > 1:
        config["hidden"] = [len(state[k]) for k in layers[:-1]]
    reduction = state.get("head.reduction.0.weight")
    config["dim"] = None if reduction is None else len(reduction)
    return config


def first_layer(state: Mapping[str, Tensor]) -> str:
    """Name the weight that sees the head's vector.

    >>> first_layer({"classifier.0.weight": torch.zeros(5, 36)})
    'classifier.0.weight'
    """
    return "classifier.weight" if "classifier.weight" in state else "classifier.0.weight"


def fold_full_matrix(state: State, dim: int) -> None:
    """Fold a classifier of all d² entries of the symmetric matrix into one of its triangle, without loss.

    .. math:: w'_{ii} = w_{ii},\\qquad w'_{ij} = w_{ij} + w_{ji}\\quad (i<j)

    >>> state = {"classifier.weight": torch.tensor([[1.0, 2.0, 3.0, 4.0]])}
    >>> fold_full_matrix(state, 2)
    >>> state["classifier.weight"]
    tensor([[1., 5., 4.]])
    """
    key = first_layer(state)
    weight = state[key]
    if weight.shape[1] != dim * dim:
        return
    full = weight.double().view(len(weight), dim, dim)
    both = full + full.mT - torch.diag_embed(full.diagonal(dim1=1, dim2=2))
    i, j = torch.triu_indices(dim, dim)
    state[key] = both[:, i, j].to(weight.dtype)


def transpose_triangle(config: Mapping[str, Any], state: State) -> None:
    """Bring a classifier trained on the triangle column by column into the order row by row.

    The entry (i, j), i ≤ j, has the position j(j+1)/2 + i in the old order.

    >>> state = {"classifier.weight": torch.tensor([[11.0, 12, 22, 13, 23, 33]])}
    >>> transpose_triangle({"dim": 3}, state)
    >>> state["classifier.weight"]
    tensor([[11., 12., 13., 22., 23., 33.]])
    """
    dim, key = config.get("dim"), first_layer(state)
    if dim is None or state[key].shape[1] != dim * (dim + 1) // 2:
        raise ZooError(f"triangle must be auto for this file: its classifier sees no triangle of a {dim}×{dim} matrix")
    i, j = torch.triu_indices(dim, dim)
    state[key] = state[key][:, j * (j + 1) // 2 + i]


def assemble(config: Mapping[str, Any], state: State, where: str) -> GCPNet:
    """Build the network of ``config`` with exactly these tensors; missing batch counters are zero.

    Raises:
        ZooError: if the tensors do not fit; ``where`` names their origin.

    >>> assemble({"backbone": "resnet18", "head": "gap", "until": "layer1", "num_classes": 3}, {}, "w.pth")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: w.pth does not fit: ... missing, 0 unexpected and 0 misshapen tensors, such as ...
    """
    model = GCPNet.from_config(config)
    own = model.state_dict()
    for key in own:
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, torch.zeros((), dtype=torch.long))
    if wrong := misfit(own, state):
        raise ZooError(f"{where} does not fit: {wrong}; is it another architecture?")
    model.load_state_dict(state)
    return model.eval()

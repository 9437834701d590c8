"""The SHA-256 by which a network is recognized, whichever file it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gcpzoo.models.gcpnet import GCPNet


def fingerprint(model: GCPNet) -> str:
    """Compute the SHA-256 of what decides a network's answers: configuration, preprocessing and tensors.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "gap", 2, until="layer1")
    >>> before = fingerprint(model)
    >>> _ = model.classifier.bias.data.add_(1)
    >>> len(before), fingerprint(model) == before
    (64, False)
    """
    preprocessing = model.preprocessing.to_dict() if model.preprocessing else None
    digest = hashlib.sha256(json.dumps([model.config, preprocessing], sort_keys=True, default=str).encode())
    add_tensors(digest, model.state_dict())
    return digest.hexdigest()


def add_tensors(digest: Any, tensors: Mapping[str, Tensor]) -> None:
    """Add names, dtypes, shapes and values of tensors to one of hashlib's digests, by name.

    >>> digest = hashlib.sha256()
    >>> add_tensors(digest, {"weight": torch.zeros(2)})
    >>> digest.hexdigest() == hashlib.sha256(b"weight torch.float32 (2,)" + bytes(8)).hexdigest()
    True
    """
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)

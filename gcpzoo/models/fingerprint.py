"""The SHA-256 by which a network is recognized, whichever file it comes from."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from gcpzoo.models.gcpnet import GCPNet


def fingerprint(model: GCPNet, classifier: bool = True) -> str:
    """Compute the SHA-256 of what decides a network's answers: configuration, preprocessing, classes and tensors.

    Args:
        model: the network.
        classifier: whether the classifier, its classes and the preprocessing count; without them it is that of the
            vectors that the classifier sees of given pixels.

    >>> from gcpzoo.models import create_model
    >>> model = create_model("resnet18", "gap", 3, until="layer1")
    >>> before, whole = fingerprint(model, classifier=False), fingerprint(model)
    >>> model.reset_classifier(3)
    >>> before == fingerprint(model, classifier=False), whole == fingerprint(model), len(before)
    (True, False, 64)
    """
    config = {key: value for key, value in model.config.items() if classifier or key != "num_classes"}
    about: list[Any] = [config]
    if classifier:
        preprocessing = model.preprocessing.to_dict() if model.preprocessing else None
        about += [preprocessing, model.class_names, model.class_descriptions]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if classifier or not name.startswith(("classifier.", "first_classifier.")):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

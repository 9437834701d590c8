"""DifferentiableSVD (github.com/KingJamesSong/DifferentiableSVD, Apache-2.0): exact roots, ICCV 2021.

Its layouts are those of fast-MPN-COV; one of its networks classifies all d² entries of the matrix. The variants differ
in the backward pass alone, so that every name gives the same logits; the head matters for further training.
"""

from __future__ import annotations

from typing import Any

from gcpzoo.hub.convert import fast_mpn_cov
from gcpzoo.hub.convert.common import State, fold_full_matrix, match

HEADS = {
    "pade": "svd_pade",
    "taylor": "svd_taylor",
    "newton": "svd_newton",
    "trunc": "svd_trunc",
    "topn": "svd_topn",
    "original": "svd_original",
    "pi": "svd_power_iteration",
}


def convert(tensors: State, arch: str) -> tuple[dict[str, Any], State]:
    """Give the configuration and the renamed tensors of ``mpncovresnet50``, or with its method ``pade_resnet50``.

    >>> convert({}, "lenet")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: unknown architecture 'lenet': this source has mpncovresnet50, mpncovresnet101, or ...
    """
    name = match(
        rf"(?:(?:svd_)?({'|'.join(HEADS)})_)?(?:mpncov)?(resnet\d+)",
        arch.lower(),
        "mpncovresnet50, mpncovresnet101, or pade_resnet50 and so on for " + ", ".join(HEADS),
    )
    config, state = fast_mpn_cov.convert(tensors, f"mpncov{name[2]}", HEADS[name[1] or "pade"])
    if config["dim"]:
        fold_full_matrix(state, config["dim"])
    return config, state

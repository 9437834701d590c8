"""Second-order heads, one paper one file: feature map ``(B, C, h, w)`` to vector ``(B, out_features)``."""

from gcpzoo.heads import (
    bcnn,
    cbp,
    dropcov,
    gap,
    gaussian,
    improved_bcnn,
    isqrt,
    mgcrp,
    moment_probing,
    mpa_lya,
    mpn_cov,
    riemannian,
    seb,
    svd,
    tcp,
)
from gcpzoo.heads.base import Head, RootHead, SecondOrderHead
from gcpzoo.heads.registry import create_head, head_arguments, list_heads

__all__ = [
    "Head",
    "RootHead",
    "SecondOrderHead",
    "bcnn",
    "cbp",
    "create_head",
    "dropcov",
    "gap",
    "gaussian",
    "head_arguments",
    "improved_bcnn",
    "isqrt",
    "list_heads",
    "mgcrp",
    "moment_probing",
    "mpa_lya",
    "mpn_cov",
    "riemannian",
    "seb",
    "svd",
    "tcp",
]

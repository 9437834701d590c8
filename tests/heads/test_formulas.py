"""Each head against its formula, computed directly in float64, and the constants that the papers set."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from module_tester import features, noise, relative
from torch import Tensor

from gcpzoo.functional import covariance, svpn
from gcpzoo.heads import create_head, head_arguments
from gcpzoo.heads.bcnn import signed_sqrt

D = 6


def upper(a: Tensor) -> Tensor:
    """Upper triangle, row by row."""
    return torch.stack([a[:, i, j] for i in range(a.shape[1]) for j in range(i, a.shape[1])], 1)


def of_eigenvalues(a: Tensor, f: Any) -> Tensor:
    w, u = torch.linalg.eigh(a)
    return (u * f(w.clamp_min(0))[:, None]) @ u.mT


def root(a: Tensor) -> Tensor:
    return of_eigenvalues(a, torch.sqrt)


def sigma(x: Tensor) -> Tensor:
    return torch.stack([torch.cov(sample, correction=0) for sample in x.flatten(2)])


def second_moment(x: Tensor) -> Tensor:
    return torch.einsum("bihw,bjhw->bij", x, x) / (x.shape[2] * x.shape[3])


def normalized(v: Tensor) -> Tensor:
    z = v.sign() * (v.abs() + 1e-8).sqrt()
    return z / z.norm(dim=1, keepdim=True)


def newton_schulz(a: Tensor, steps: int) -> Tensor:
    trace = a.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    y, z, eye = a / trace, torch.eye(a.shape[1]).to(a), torch.eye(a.shape[1]).to(a)
    for _ in range(steps):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    return y * trace.sqrt()


def embedding(x: Tensor) -> Tensor:
    return second_moment(torch.cat([x, torch.ones_like(x[:, :1])], 1))


def branch(a: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(root(a) @ torch.linalg.matrix_exp(-a), keepdim=True)


def log_cholesky(a: Tensor, eps: float) -> Tensor:
    lower = torch.linalg.cholesky(a + eps * torch.eye(a.shape[1]).to(a))
    chart = lower.tril(-1) + torch.diag_embed(lower.diagonal(dim1=1, dim2=2).log())
    return chart + chart.mT


EYE = torch.eye(D, dtype=torch.float64)
FORMULAS: list[tuple[str, dict[str, Any], Any]] = [
    ("gap", {}, lambda x: x.mean((2, 3))),
    ("bcnn", {}, lambda x: normalized(second_moment(x).flatten(1))),
    ("improved_bcnn", {}, lambda x: normalized(root(second_moment(x)).flatten(1))),
    ("improved_bcnn", {"root": "isqrt"}, lambda x: normalized(newton_schulz(second_moment(x), 5).flatten(1))),
    ("isqrt", {}, lambda x: upper(newton_schulz(sigma(x), 5))),
    ("isqrt", {"iterations": 2}, lambda x: upper(newton_schulz(sigma(x), 2))),
    ("mpn_cov", {}, lambda x: upper(root(sigma(x)))),
    ("mpn_cov", {"alpha": 0.7}, lambda x: upper(of_eigenvalues(sigma(x), lambda w: w**0.7))),
    ("mpn_cov", {"norm": "l2"}, lambda x: upper(root(sigma(x) / torch.linalg.matrix_norm(sigma(x), 2, keepdim=True)))),
    ("mpn_cov", {"norm": "frobenius"}, lambda x: upper(F.normalize(root(sigma(x)).flatten(1)).view(-1, D, D))),
    ("mpn_cov", {"logarithm": True}, lambda x: upper(of_eigenvalues(sigma(x) + 1e-3 * EYE, torch.log))),
    ("gaussian", {}, lambda x: upper(newton_schulz(embedding(x), 5))),
    ("gaussian", {"root": "exact"}, lambda x: upper(root(embedding(x)))),
    ("dropcov", {}, lambda x: upper(sigma(x))),
    ("seb", {}, lambda x: upper(root(sigma(x)) * (1 + branch(sigma(x))))),
    ("seb", {"backward": "exact"}, lambda x: upper(root(sigma(x)) * (1 + branch(sigma(x))))),
    ("pow_emlr", {}, lambda x: upper(newton_schulz(sigma(x), 5))),
    ("scale_pow_emlr", {}, lambda x: upper(2 * newton_schulz(sigma(x), 5))),
    ("pow_tmlr", {}, lambda x: upper(2 * (newton_schulz(sigma(x), 5) - EYE))),
    ("cho_tmlr", {}, lambda x: upper(log_cholesky(sigma(x), 1e-6))),
    ("cho_tmlr", {"eps": 0.1}, lambda x: upper(log_cholesky(sigma(x), 0.1))),
]


@pytest.mark.parametrize(
    ("name", "args", "formula"), FORMULAS, ids=lambda v: str(v) if isinstance(v, (str, dict)) else ""
)
@pytest.mark.parametrize("scale", [1.0, 1e-2], ids=["ordinary", "small"])  # constants show beside small features
def test_head_is_its_formula(name: str, args: dict[str, Any], formula: Any, scale: float) -> None:
    x = features(2, D, 4, 8, dtype=torch.float64) * scale  # 32 positions: a power of two, where released is exact
    head = create_head(name, in_features=D, **args).eval()
    assert relative(head(x), formula(x)) < 1e-7  # roots of float64 rounding


def test_signed_root_adds_its_constant_under_the_root() -> None:
    v = torch.tensor([[1e-8, -3e-8, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(signed_sqrt(v), F.normalize(torch.tensor([[2**0.5, -2.0, 0.0]], dtype=torch.float64)))


def test_sketch_is_followed_by_signed_root_and_norm() -> None:
    x = features(2, D, 3, 4, dtype=torch.float64)
    head = create_head("cbp", in_features=D, sketch_dim=32)
    assert relative(head(x), normalized(head.normalize(x.flatten(2)))) < 1e-12
    assert create_head("cbp", in_features=D).out_features == 8192
    assert {*head.sign1.tolist(), *head.sign2.tolist()} == {-1.0, 1.0}
    assert not torch.equal(head.hash1, head.hash2)


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("isqrt", {"iterations": 5, "root": None, "cov_groups": 1, "reduction": "relu", "groups": 1}),
        ("svd_newton", {"iterations": 3, "backward": "published"}),
        ("mpn_cov", {"alpha": 0.5, "norm": None, "logarithm": False}),
        ("seb", {"backward": "original", "parity": None}),
        ("dropcov", {"kernel_size": 3, "parity": None}),
        ("cbp", {"sketch_dim": 8192, "seed": 1}),
        ("cho_tmlr", {"eps": 1e-6}),
        ("mgcrp", {"heads": 6, "head_dim": 24, "normalization": "svpn", "alpha": 0.5, "mean": "scalar"}),
        ("mgcrp", {"token_dropout": 0.0, "dropout": 0.0}),
    ],
)
def test_defaults_are_those_of_the_papers(name: str, defaults: dict[str, Any]) -> None:
    known = head_arguments(name)
    assert {key: known[key] for key in defaults} == defaults


@pytest.mark.parametrize("name", ["improved_bcnn", "mpa_lya", "mtp_lya", "svd_pade", "svd_taylor", "svd_newton"])
def test_a_head_takes_its_own_root_unless_told_otherwise(name: str) -> None:
    own = {"improved_bcnn": "exact"}.get(name, name)
    assert create_head(name, in_features=4).root == own
    assert create_head(name, in_features=4, root="isqrt").root == "isqrt"


def test_dropcov_weights_drops_and_pools_as_its_formula_says() -> None:
    x = noise(3, 64, 3, 3)
    head = create_head("dropcov", in_features=64).train()
    y = F.conv1d(x.mean((2, 3))[:, None], head.conv.weight, padding=1)[:, 0].softmax(1)
    weighted = x.flatten(2) * (1 + y[:, :, None])
    cosine = F.cosine_similarity(y, covariance(weighted).sum(2), dim=1).mean()
    rate = (1 - 10 / math.log2(64) * cosine).clamp(0, 1)
    torch.manual_seed(1)
    out = head(x)
    torch.manual_seed(1)
    kept = torch.bernoulli((1 - rate).expand(3, 64, 1))
    assert 0 < rate < 1
    assert 0 < kept.sum() < kept.numel()
    expected = sigma((weighted / (1 + 1 / 64) * kept / (1 - rate))[..., None])
    assert relative(out, upper(expected)) < 1e-5  # float32


@pytest.mark.parametrize("alpha", [0.5, 0.3])
@pytest.mark.parametrize("mean", ["scalar", "channel"])
def test_cross_covariance_pooling_is_its_formula(alpha: float, mean: str) -> None:
    x = noise(2, 8, 5, 1, dtype=torch.float64)
    head = create_head("mgcrp", in_features=8, heads=2, head_dim=3, alpha=alpha, mean=mean).double()
    q, k = torch.einsum("oc,bcn->bon", head.projection.weight, x[..., 0]).split(6, 1)
    dims = (1, 2) if mean == "scalar" else (2,)
    parts = []
    for h in range(2):
        a, b = q[:, 3 * h : 3 * h + 3], k[:, 3 * h : 3 * h + 3]
        c = (a - a.mean(dims, keepdim=True)) @ (b - b.mean(dims, keepdim=True)).mT / 5
        parts.append(svpn(c, head.start, alpha).flatten(1))
    assert relative(head(x), torch.cat(parts, 1)) < 1e-12  # float64


@pytest.mark.parametrize("name", ["bcnn", "cbp", "gaussian", "cho_tmlr", "mpn_cov"])
def test_groups_of_channels_are_pooled_one_by_one(name: str) -> None:
    x = features(2, 12, 4, 5)
    grouped = create_head(name, in_features=12, cov_groups=3)
    one = create_head(name, in_features=4)
    parts = torch.cat([one(part) for part in x.split(4, 1)], 1)
    assert grouped.out_features == parts.shape[1]
    assert relative(grouped(x), parts) < 1e-5  # float32

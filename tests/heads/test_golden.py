"""Values and gradients of the authors' own code, and exact drop rates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from module_tester import GOLDEN, golden, relative
from safetensors.torch import load_file
from torch import Tensor

from gcpzoo import functional
from gcpzoo.heads import create_head

# float32 iterations reproduce to 1e-5. Spectral heads take roots of null eigenvalues, which magnify the rounding of
# float64 to 1e-8 and of the float32 result to 1e-5: 1e-4.
ITERATIVE, SPECTRAL = 1e-5, 1e-4
HEADS: dict[str, tuple[str, dict[str, Any], float]] = {
    "bcnn": ("bcnn", {}, ITERATIVE),
    **{f"isqrt_n{n}": ("isqrt", {"iterations": n}, ITERATIVE) for n in (1, 2, 3, 5, 7)},
    "riem_powemlr_n5": ("pow_emlr", {}, ITERATIVE),
    "riem_scalepowemlr_n5": ("scale_pow_emlr", {}, ITERATIVE),
    "riem_powtmlr_n5": ("pow_tmlr", {}, ITERATIVE),
    "riem_cholesky": ("cho_tmlr", {}, SPECTRAL),
    "seb": ("seb", {}, SPECTRAL),
    **{f"svd_{r}": (f"svd_{r}", {}, SPECTRAL) for r in ("original", "pade", "taylor", "trunc", "newton")},
}
MATRICES = {"mpa_lya": functional.mpa_sqrt, "mtp_lya": functional.mtp_sqrt}

Case = dict[str, Tensor]


def gradient(out: Tensor, case: Case, x: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad((out.reshape(case["cotangent"].shape) * case["cotangent"]).sum(), x)
    return grad


@pytest.mark.parametrize(
    ("name", "case"), [pytest.param(n, *p.values, id=f"{n}-{p.id}") for n in HEADS for p in golden(f"heads/{n}")]
)
def test_head_gives_the_authors_values_and_gradients(name: str, case: Case) -> None:
    head, args, tolerance = HEADS[name]
    x = case["x"].clone().requires_grad_()
    out = create_head(head, in_features=x.shape[1], **args)(x)
    assert relative(out, case["out"]) < tolerance
    assert relative(gradient(out, case, x), case["grad"]) < tolerance


@pytest.mark.parametrize("case", golden("heads/covariance"))
def test_covariance_gives_the_authors_values_and_gradients(case: Case) -> None:
    x = case["x"].clone().requires_grad_()
    out = functional.triangle(functional.covariance(x))
    assert relative(out, case["out"]) < ITERATIVE
    assert relative(gradient(out, case, x), case["grad"]) < ITERATIVE


@pytest.mark.parametrize(
    ("name", "case"), [pytest.param(n, *p.values, id=f"{n}-{p.id}") for n in MATRICES for p in golden(f"heads/{n}")]
)
def test_lyapunov_root_gives_the_authors_values_and_gradients(name: str, case: Case) -> None:
    a = case["x"].clone().requires_grad_()
    out = MATRICES[name](a)
    assert relative(out.flatten(1), case["out"]) < ITERATIVE
    assert relative(gradient(out, case, a), case["grad"]) < ITERATIVE


@pytest.mark.parametrize("case", golden("heads/mpa_lya_inv"))
def test_inverse_root_gives_the_authors_values(case: Case) -> None:
    assert relative(functional.mpa_inv_sqrt(case["x"]).flatten(1), case["out"]) < ITERATIVE


@pytest.mark.parametrize("case", golden("heads/mpa_lya_inv"))
def test_inverse_root_has_the_authors_gradient_with_their_norm_over_the_batch(case: Case) -> None:
    r = functional.mpa_inv_sqrt(case["x"])
    square = r @ r
    right = -square @ case["cotangent"].reshape(r.shape) @ square
    assert relative(functional.lyapunov_solve(r, right, r.norm()), case["grad"]) < ITERATIVE


@pytest.mark.parametrize("case", golden("heads/svd_topn"))
def test_topn_gives_the_authors_values(case: Case) -> None:
    assert relative(create_head("svd_topn", in_features=64)(case["x"]), case["out"]) < SPECTRAL


@pytest.mark.parametrize("case", golden("heads/cbp_512"))
def test_compact_bilinear_pooling_gives_the_authors_values_where_the_sketch_is_not_zero(case: Case) -> None:
    head = create_head("cbp", in_features=case["x"].shape[1], sketch_dim=512)
    head.load_state_dict({k: case[k] for k in ("hash1", "hash2", "sign1", "sign2")})
    hit = head.double()(case["x"].double()) != 0
    assert relative(head.float()(case["x"])[hit], case["out"][hit]) < ITERATIVE
    # The authors' other entries are square roots of the rounding of a float32 FFT.
    assert relative(head(case["x"]), case["out"]) < 1e-3


@pytest.mark.parametrize("case", golden("heads/dropcov"))
def test_dropcov_has_the_authors_importance_rate_and_evaluation(case: Case) -> None:
    importance = functional.channel_importance(case["x"], case["eca_weight"])
    weighted = case["x"] + case["x"] * importance[:, :, None, None]
    assert relative(importance, case["importance"]) < ITERATIVE
    assert relative(weighted, case["eca_out"]) < ITERATIVE
    rate = functional.adaptive_drop_rate(weighted, importance)
    assert abs(float(rate) - float(case["drop_rate"])) < ITERATIVE
    head = create_head("dropcov", in_features=case["x"].shape[1]).eval()
    assert relative(head(case["x"]), case["eval_out"]) < ITERATIVE


def test_cross_covariance_pooling_and_svpn_give_the_authors_values() -> None:
    case = load_file(GOLDEN / "blocks" / "mgcrp.safetensors")
    head = create_head("mgcrp", in_features=48, heads=4, head_dim=6, normalization=None)
    head.load_state_dict({"projection.weight": case["weight"]})
    assert relative(head(case["x"].mT[..., None]), case["mgcrp"]) < ITERATIVE
    assert relative(functional.svpn(case["svpn_x"], case["svpn_start"]).flatten(1), case["svpn_out"]) < ITERATIVE


@pytest.mark.parametrize("case", golden("heads/svd_pade"))
def test_released_covariance_is_that_of_the_float32_centering_matrix(case: Case) -> None:
    x = case["x"].flatten(2)
    m = x.shape[2]
    centering = -1.0 / m / m * torch.ones(m, m) + 1.0 / m * torch.eye(m)
    expected = x.double() @ centering.double() @ x.double().mT
    assert relative(functional.released_covariance(x), expected) < 1e-14  # float64

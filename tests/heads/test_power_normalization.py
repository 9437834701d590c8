"""SigmE, MaxExp, Gamma, AsinhE and the spectral MaxExp(F): given values, formulas, and both sides of the features."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from golden_heads import Case, check_case
from head_tester import HeadTester
from module_tester import Compiles, Exports, features, golden, noise, relative

from gcpzoo.errors import ZooError
from gcpzoo.functional import maxexp_f
from gcpzoo.functional import power_normalization as power
from gcpzoo.heads import create_head


class TestSigmE(Compiles, Exports, HeadTester):
    head = "sigme"


class TestMaxExp(Compiles, Exports, HeadTester):
    head = "maxexp"


class TestGamma(Compiles, Exports, HeadTester):
    head = "gamma"


class TestAsinhE(Compiles, Exports, HeadTester):
    head = "asinhe"


class TestMaxExpF(Compiles, Exports, HeadTester):
    head = "maxexp_f"


class TestMaxExpFGroups(HeadTester):
    head = "maxexp_f"
    args: ClassVar = {"cov_groups": 2, "eta": 7}


ARGUMENTS: dict[str, dict[str, Any]] = {
    "asinhe_500": {"scale": 500},
    "gamma_0.5": {"gamma": 0.5},
    "maxexp_20": {"eta": 20},
    "maxexp_f_20": {"eta": 20},
}


@pytest.mark.parametrize(
    ("setting", "case"), [pytest.param(p.id.split("_", 4)[4], *p.values, id=p.id) for p in golden("heads2/power_norms")]
)
def test_values_and_gradients_are_those_of_the_formula(setting: str, case: Case) -> None:
    check_case(create_head(setting.rsplit("_", 1)[0], in_features=case["x"].shape[1], **ARGUMENTS[setting]), case)


@pytest.mark.parametrize("case", golden("heads2/sosn_sigme"))
def test_sigme_gives_the_authors_values_in_all_entries(case: Case) -> None:
    d = case["x"].shape[1]
    head = create_head("sigme", in_features=d, eta=100)
    assert head.out_features == d * d
    check_case(head, case)


def test_the_defaults_are_the_papers() -> None:
    assert create_head("sigme", in_features=2).eta == 100
    assert create_head("maxexp", in_features=2).eta == 20
    assert create_head("maxexp_f", in_features=2).eta == 20
    assert create_head("gamma", in_features=2).gamma == 0.5
    assert create_head("asinhe", in_features=2).scale == 500


@pytest.mark.parametrize("name", ["sigme", "maxexp", "gamma", "asinhe", "maxexp_f"])
def test_an_all_zero_map_gives_zeros_with_a_finite_gradient(name: str) -> None:
    x = features(2, 6, 4, 4)
    x[1] = 0
    x.requires_grad_()
    out = create_head(name, in_features=6)(x)
    out.sum().backward()
    assert (out[1] == 0).all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", ["sigme", "maxexp", "gamma", "asinhe"])
def test_negative_features_give_finite_values_odd_in_the_entries(name: str) -> None:
    x = noise(1, 2, 3, 3, dtype=torch.float64).abs()
    flipped = x * torch.tensor([1.0, -1.0])[:, None, None]
    head = create_head(name, in_features=2)
    out, other = head(x)[0], head(flipped)[0]
    assert out.isfinite().all()
    torch.testing.assert_close(other[1], -out[1])
    torch.testing.assert_close(other[0], out[0])


def test_one_channel_alone_has_the_whole_share_and_a_finite_gradient() -> None:
    x = torch.full((1, 1, 2, 2), 3.0, requires_grad=True)
    out = create_head("maxexp", in_features=1, eta=0.5)(x)
    out.sum().backward()
    assert out.item() == pytest.approx(1.0, abs=1e-3)
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e12])
def test_sigme_does_not_depend_on_the_scale_of_the_features(scale: float) -> None:
    x = features(2, 6, 4, 4)
    head = create_head("sigme", in_features=6)
    y = (x * scale).requires_grad_()
    out = head(y)
    out.square().sum().backward()
    assert relative(out, head(x)) < 1e-6
    assert y.grad.isfinite().all()


def test_small_shares_keep_their_digits() -> None:
    p = torch.tensor([1e-7, 1e-5])
    expected = -torch.expm1(20 * torch.log1p(-p.double()))
    assert relative(power.maxexp(p), expected) < 1e-6


# 5 channels of 9 positions: the d×d side; 9 of 4: the M×M side
@pytest.mark.parametrize("shape", [(2, 5, 9), (2, 9, 4)])
@pytest.mark.parametrize("eta", [1, 2, 3, 4, 7, 12, 20, 31])
def test_spectral_maxexp_is_the_matrix_power_on_either_side(eta: int, shape: tuple[int, int, int]) -> None:
    x = noise(*shape, dtype=torch.float64)
    s = x @ x.mT / x.shape[2]
    p = s / (s.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + 1e-6)
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    assert relative(maxexp_f(x, eta), eye - torch.linalg.matrix_power(eye - p, eta)) < 1e-12


def test_spectral_maxexp_never_forms_a_large_matrix_of_few_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(power, "_geometric_sum", lambda q, n: sizes.append(q.shape) or q)
    maxexp_f(noise(2, 64, 9), 20)
    assert sizes == [(2, 9, 9)]


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("sigme", {"eta": 0}, "eta must be positive, got 0"),
        ("maxexp", {"eta": -1}, "eta must be positive, got -1"),
        ("maxexp_f", {"eta": 2.5}, "eta must be a whole number, got 2.5"),
        ("maxexp_f", {"eta": 1001}, "eta must be at most 1000, got 1001"),
        ("gamma", {"gamma": 0}, "gamma must be positive, got 0"),
        ("asinhe", {"scale": float("inf")}, "scale must be positive, got inf"),
    ],
)
def test_mistakes_are_named(name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        create_head(name, in_features=8, **args)

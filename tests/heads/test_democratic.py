"""Gamma-democratic pooling: given values, its fixed point, repeated and silent positions."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from golden_heads import Case, check_case
from head_tester import HeadTester
from module_tester import Compiles, Exports, features, golden, noise, relative

from gcpzoo.errors import ZooError
from gcpzoo.functional import gamma_democratic
from gcpzoo.heads import create_head


class TestGammaDemocratic(Compiles, Exports, HeadTester):
    head = "gamma_democratic"


class TestDemocraticGroups(HeadTester):
    head = "gamma_democratic"
    args: ClassVar = {"gamma": 0.0, "cov_groups": 2}


@pytest.mark.parametrize(
    ("gamma", "case"),
    [pytest.param(float(p.id.split("gamma")[1]), *p.values, id=p.id) for p in golden("heads2/gamma_democratic")],
)
def test_values_and_gradients_are_those_of_the_formula(gamma: float, case: Case) -> None:
    head = create_head("gamma_democratic", in_features=case["x"].shape[1], gamma=gamma)
    assert head.out_features == case["x"].shape[1] ** 2
    check_case(head, case)


def test_in_the_end_all_positions_contribute_alike() -> None:
    x = noise(1, 20, 6, dtype=torch.float64) * torch.arange(1.0, 7.0)
    a = gamma_democratic(x, gamma=0.0, iterations=200)
    contributions = torch.einsum("bim,bij,bjm->bm", x, a, x)  # of x xᵀ to the squared norm, but for α
    alpha = torch.linalg.lstsq(torch.einsum("bim,bjm->bijm", x, x).reshape(400, 6), a.reshape(400, 1)).solution[:, 0]
    share = alpha * contributions[0]
    assert relative(share, torch.full_like(share, float(share.mean()))) < 1e-6


def test_gamma_one_is_the_plain_sum() -> None:
    x = features(2, 5, 3, 4, dtype=torch.float64).flatten(2)
    a, s = gamma_democratic(x, gamma=1.0), x @ x.mT
    assert relative(a / a.norm(dim=(1, 2), keepdim=True), s / s.norm(dim=(1, 2), keepdim=True)) < 1e-12


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_silent_positions_and_samples_change_nothing_and_have_finite_gradients(gamma: float) -> None:
    x = features(2, 5, 3, 4)
    x[1] = 0
    wide = torch.cat([x, torch.zeros(2, 5, 3, 2)], 3).requires_grad_()
    head = create_head("gamma_democratic", in_features=5, gamma=gamma)
    out = head(wide)
    out.sum().backward()
    assert relative(out[:1], head(x[:1])) < 1e-6
    assert (out[1] == 0).all()
    assert wide.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-15, 1e12])
def test_features_of_any_scale_give_the_same(scale: float) -> None:
    x = features(2, 5, 3, 4)
    head = create_head("gamma_democratic", in_features=5)
    assert relative(head(x * scale), head(x)) < 1e-5


def test_weights_have_a_gradient_and_no_scale() -> None:
    x = features(1, 3, 2, 3, dtype=torch.float64).flatten(2)
    weights = torch.rand(1, 6, dtype=torch.float64) + 0.1
    head = create_head("gamma_democratic", in_features=3)
    assert relative(head(x, weights=7 * weights), head(x, weights=weights)) < 1e-9
    assert torch.autograd.gradcheck(lambda w: head(x, weights=w), (weights.requires_grad_(),), atol=1e-5)


@pytest.mark.parametrize("gamma", [-0.1, 1.5, float("nan"), "half"])
def test_a_gamma_beyond_its_range_is_refused(gamma: object) -> None:
    with pytest.raises(ZooError, match="gamma must be between 0 and 1, got"):
        create_head("gamma_democratic", in_features=8, gamma=gamma)

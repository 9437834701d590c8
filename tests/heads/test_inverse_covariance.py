"""iSICE and INVCOV: the authors' values with and without their jitter, the formula, and both ways to compute it."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from golden_heads import GRADIENT, OUT, Case, check_case
from head_tester import HeadTester
from module_tester import Compiles, Exports, features, golden, relative
from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.functional import inverse_covariance, newton_schulz_inverse, sparse_inverse_covariance, triangle
from gcpzoo.heads import create_head


class TestISice(Compiles, Exports, HeadTester):
    head = "isice"


class TestISiceOneStep(HeadTester):
    head = "isice"
    args: ClassVar = {"steps": 1, "rate": 5.0}


class TestInvCov(Compiles, Exports, HeadTester):
    head = "invcov"


SETTINGS = {"n5_s0.01_l1.0": (5, 0.01, 1.0), "n8_s0.05_l0.5": (8, 0.05, 0.5)}
ISICE = [pytest.param(SETTINGS[p.id.split("_", 4)[4]], *p.values, id=p.id) for p in golden("heads2/isice")]
INVCOV = [pytest.param(int(p.id.rsplit("_n")[1]), *p.values, id=p.id) for p in golden("heads2/invcov")]


def check_function(function: object, case: Case) -> None:
    x = case["x"].clone().requires_grad_()
    out = triangle(function(x))
    assert relative(out, case["out"]) < OUT
    (out * case["cotangent"]).sum().backward()
    assert relative(x.grad, case["grad"]) < GRADIENT


@pytest.mark.parametrize(("setting", "case"), ISICE)
def test_isice_gives_the_authors_values_with_their_jitter_and_with_its_own(setting: tuple, case: Case) -> None:
    steps, sparsity, rate = setting
    check_function(lambda x: sparse_inverse_covariance(x, *setting, jitter=case["jitter"]), case)
    d = case["x"].shape[1]
    check_case(create_head("isice", in_features=d, steps=steps, sparsity=sparsity, rate=rate), case)


@pytest.mark.parametrize(("iterations", "case"), INVCOV)
def test_invcov_gives_the_authors_values_with_their_jitter_and_with_its_own(iterations: int, case: Case) -> None:
    check_function(lambda x: inverse_covariance(x, iterations, jitter=case["jitter"]), case)
    check_case(create_head("invcov", in_features=case["x"].shape[1], iterations=iterations), case)


def spectrum(d: int, low: float = 0.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Two symmetric matrices with eigenvalues between 1 and ``low``, many of them equal to it."""
    q = torch.linalg.qr(torch.randn(2, d, d, dtype=torch.float64))[0]
    w = torch.linspace(1, -0.5, d, dtype=torch.float64).clamp_min(low)
    return ((q * w) @ q.mT).to(dtype)


def textbook(a: Tensor, iterations: int) -> Tensor:
    d = a.shape[1]
    eye = torch.eye(d).to(a)
    a = a + 1e-10 + 5e-10 * eye
    trace = a.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    y, z = a / trace, eye
    for _ in range(iterations):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    return z @ z / trace


# 20 rows: products; 70 rows: eigenvalues
@pytest.mark.parametrize("d", [20, 70])
def test_the_inverse_and_its_gradient_are_those_of_the_coupled_iteration(d: int) -> None:
    a = spectrum(d).requires_grad_()
    cotangent = torch.randn(2, d, d, dtype=torch.float64)
    own, other = newton_schulz_inverse(a), textbook(a, 7)
    assert relative(own, other) < 1e-9
    (grad,) = torch.autograd.grad((own * cotangent).sum(), a)
    (expected,) = torch.autograd.grad((other * (cotangent + cotangent.mT) / 2).sum(), a)
    # Equal eigenvalues are moved apart by 1e-11 of the trace, which the curvature magnifies.
    assert relative(grad, expected) < 1e-6


def test_seven_steps_reach_the_inverse_of_a_well_conditioned_matrix_and_292_at_most() -> None:
    a = spectrum(4, low=0.5)
    assert relative(newton_schulz_inverse(a), torch.linalg.inv(a)) < 1e-6
    null = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))[None]
    assert newton_schulz_inverse(null)[0, 1, 1].item() == pytest.approx(1.5**14, rel=1e-3)


def direct(x: Tensor, steps: int, sparsity: float, rate: float) -> Tensor:
    """The published algorithm, line by line, with its last step."""
    x = x - x.mean(2, keepdim=True)
    c = x @ x.mT / x.shape[2]
    c = c / c.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    p = textbook(c, 7)
    for i in range(steps):
        g = c - textbook(p, 7)
        s = rate * (1 - i / (steps - 1))
        plus = (p.relu() - s * (g + sparsity)).relu()
        minus = ((-p).relu() - s * (sparsity - g)).relu()
        p = plus - minus
        p = (p + p.mT) / 2
    return p / p.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].sqrt()


# A rate at which the steps matter: a tenth of the result.
@pytest.mark.parametrize("d", [20, 70])
def test_isice_is_the_algorithm_line_by_line_also_where_its_steps_matter(d: int) -> None:
    x = features(2, d, 6, 6, dtype=torch.float64).flatten(2).requires_grad_()
    setting = (4, 0.2, 5.0 * 20 / d)
    own, other = sparse_inverse_covariance(x, *setting), direct(x, *setting)
    assert relative(other, sparse_inverse_covariance(x, 4, 0.0, 1e-9)) > 1e-2
    assert relative(own, other) < 1e-6
    cotangent = torch.randn_like(own)
    (grad,) = torch.autograd.grad((own * cotangent).sum(), x)
    (expected,) = torch.autograd.grad((other * (cotangent + cotangent.mT) / 2).sum(), x)
    assert relative(grad, expected) < 1e-5


def test_one_step_has_the_full_length() -> None:
    x = features(2, 6, 4, 4, dtype=torch.float64).flatten(2)
    c = torch.stack([torch.cov(s, correction=0) for s in x])
    c = c / c.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    p = newton_schulz_inverse(c)
    g = c - newton_schulz_inverse(p)
    p = (p.relu() - 2 * (g + 0.1)).relu() - ((-p).relu() - 2 * (0.1 - g)).relu()
    expected = p / p.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].sqrt()
    assert relative(sparse_inverse_covariance(x, 1, 0.1, 2.0), expected) < 1e-9


@pytest.mark.parametrize("d", [6, 70])
def test_float32_is_near_float64(d: int) -> None:
    x = features(4, d, 7, 7)
    for name in ("isice", "invcov"):
        head = create_head(name, in_features=d)
        assert relative(head(x), head(x.double())) < 1e-5, name


@pytest.mark.parametrize("d", [6, 70])
@pytest.mark.parametrize("name", ["isice", "invcov"])
def test_an_all_zero_map_gives_zeros_with_a_finite_gradient(name: str, d: int) -> None:
    x = features(3, d, 4, 4)
    x[1] = 0
    x.requires_grad_()
    out = create_head(name, in_features=d)(x)
    out.square().sum().backward()
    assert (out[1] == 0).all()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    assert (x.grad[0] != 0).any()


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e12])
def test_isice_does_not_depend_on_the_scale_of_the_features(scale: float) -> None:
    x = features(2, 6, 4, 4)
    head = create_head("isice", in_features=6)
    y = (x * scale).requires_grad_()
    out = head(y)
    out.square().sum().backward()
    assert relative(out, head(x)) < 1e-5
    assert y.grad.isfinite().all()


@pytest.mark.parametrize("d", [6, 70])
def test_the_jitter_bounds_the_inverse_of_next_to_nothing(d: int) -> None:
    x = features(1, d, 4, 4, dtype=torch.float64) * 1e-12
    expected = textbook(torch.zeros(1, d, d, dtype=torch.float64), 7)
    assert relative(inverse_covariance(x), expected) < 1e-6
    other = inverse_covariance(x, jitter=torch.zeros(d, dtype=torch.float64))
    assert relative(other, expected) > 0.1


def test_thresholds_that_leave_nothing_give_finite_values() -> None:
    x = features(2, 6, 4, 4).requires_grad_()
    out = create_head("isice", in_features=6, sparsity=100.0, rate=100.0)(x)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("isice", {"steps": 0}, "steps must be at least 1, got 0"),
        ("isice", {"sparsity": -0.1}, "sparsity must be at least 0, got -0.1"),
        ("isice", {"rate": 0}, "rate must be positive, got 0"),
        ("invcov", {"iterations": 1001}, "iterations must be at most 1000, got 1001"),
    ],
)
def test_mistakes_are_named(name: str, args: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        create_head(name, in_features=8, **args)


def test_a_second_derivative_is_refused() -> None:
    x = features(2, 8, 3, 3).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(inverse_covariance(x).sum(), x, create_graph=True)


@pytest.mark.parametrize("head", ["invcov", "isice"])
def test_a_map_that_is_constant_in_space_gives_zeros(head: str) -> None:
    x = (torch.arange(1.0, 17) / 10)[None, :, None, None].expand(2, 16, 3, 3).clone().requires_grad_()
    out = create_head(head, in_features=16)(x)
    out.sum().backward()
    assert (out == 0).all()
    assert (x.grad == 0).all()

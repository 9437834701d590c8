"""Published backward rules against what they stand for."""

from __future__ import annotations

import pytest
import torch
from module_tester import features, relative
from torch import Tensor

from gcpzoo.functional import covariance, matrix_power, surrogate_sqrt, svd_sqrt
from gcpzoo.functional.released import released_centering, released_covariance
from gcpzoo.functional.surrogates import FLOOR, RULES, _series


def data(positions: int = 40) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, 6, positions, generator=g, dtype=torch.float64) * torch.arange(1.0, 7)[:, None]


def power_iterations(sigma: Tensor, v: Tensor, steps: int) -> Tensor:
    """The vector that ``steps`` power iterations make of ``v``."""
    for _ in range(steps):
        v = sigma @ v
        v = v / v.norm()
    return v


def test_power_iteration_rule_is_the_gradient_of_power_iterations() -> None:
    sigma = covariance(data())[0].requires_grad_()
    w, u = torch.linalg.eigh(sigma.detach())
    top = power_iterations(sigma, u[:, -1], 19)
    cotangent = torch.arange(6.0, dtype=torch.float64)
    (grad,) = torch.autograd.grad(top @ cotangent, sigma)
    # dv = Σ_j K_1j (u_j·dΣ v) u_j, so that the gradient is Σ_j K_1j (c·u_j) u_j vᵀ.
    k = _series(w[None], 19)[0, -1, :-1]
    expected = (u[:, :-1] * k * (cotangent @ u[:, :-1])).sum(1)[:, None] * u[:, -1]
    assert torch.allclose(grad, expected, rtol=1e-9, atol=1e-12)  # float64


@pytest.mark.parametrize("terms", [1, 5, 101])
def test_series_is_antisymmetric_and_approaches_the_quotient_from_below(terms: int) -> None:
    w = torch.tensor([[0.1, 0.5, 2.0]], dtype=torch.float64)
    k = _series(w, terms)
    quotient = RULES["original"](w)
    off = ~torch.eye(3, dtype=torch.bool)
    assert torch.allclose(k[0][off], -k[0].T[off])
    ratio = torch.tensor([0.1 / 0.5, 0.1 / 2, 0.5 / 2], dtype=torch.float64)
    upper = (k / quotient)[0][torch.triu(off)]
    assert torch.allclose(upper, 1 - ratio**terms)


def root_on_the_channels_side(x: Tensor, rule: str) -> tuple[Tensor, Tensor, Tensor]:
    """Root, eigenvalues, and the gradient of (root · C).sum() + (eigenvalues · c).sum(), always d×d, by the formula."""
    x = x.double()
    w, u = torch.linalg.eigh(released_covariance(x))
    w = w.abs().clamp_min(FLOOR)
    if rule == "topn":
        w = w.scatter(1, w.argsort(1)[:, :50], FLOOR)
    root = w.sqrt()
    c = cotangent(x.shape[1])
    gap = root[:, :, None] - root[:, None]
    divided = torch.where(gap == 0, 0, RULES[rule](w) * gap) + torch.diag_embed(0.5 / root)
    inner = u.mT @ (c + c.mT) @ u / 2 * divided + torch.diag_embed(w.clone().fill_(0.1))
    return (u * root[:, None]) @ u.mT, w, 2 * u @ inner @ u.mT @ released_centering(x)


def cotangent(d: int) -> Tensor:
    return torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize(("d", "m"), [(128, 49), (70, 49), (56, 56), (70, 120)])
def test_the_smaller_side_gives_root_eigenvalues_and_gradient_of_the_other(rule: str, d: int, m: int) -> None:
    x = features(2, d, m, 1).flatten(2).requires_grad_()
    root, w = surrogate_sqrt(x, rule)
    (grad,) = torch.autograd.grad((root * cotangent(d)).sum() + 0.1 * w.sum(), x)
    expected, spectrum, gradient = root_on_the_channels_side(x.detach(), rule)
    assert relative(root, expected) < 1e-7
    torch.testing.assert_close(w.sort(1).values, spectrum.sort(1).values)
    assert relative(grad, gradient) < 1e-6  # the gradient is that of float32 features


@pytest.mark.parametrize("rule", sorted(RULES))
def test_equal_eigenvalues_give_a_finite_gradient(rule: str) -> None:
    x = torch.cat([torch.eye(4), -torch.eye(4)], 1)[None].double().requires_grad_()  # covariance: a multiple of I
    root, _ = surrogate_sqrt(x, rule)
    (grad,) = torch.autograd.grad(root[0, 0, 1] + root[0, 2, 2], x)
    assert grad.isfinite().all()


def test_exact_rule_is_right_at_equal_eigenvalues() -> None:
    x = torch.cat([torch.eye(4), -torch.eye(4)], 1)[None].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: svd_sqrt(x, "exact"), x)


def test_all_rules_share_the_exact_value() -> None:
    x = data()
    for rule in [*sorted(set(RULES) - {"topn"}), "newton", "exact"]:
        # The centering matrix rounded to float32 leaves 1e-7 of the mean.
        assert torch.allclose(svd_sqrt(x, rule), matrix_power(x), rtol=0, atol=1e-6)


def test_unknown_rules_are_named_with_the_known() -> None:
    with pytest.raises(ValueError, match="unknown backward rule 'pad': did you mean pade"):
        svd_sqrt(data(), "pad")
    with pytest.raises(ValueError, match="unknown rule 'newton'"):
        surrogate_sqrt(data(), "newton")


def test_rules_have_their_published_constants() -> None:
    w = torch.tensor([[0.5, 1.0, 1.0 + 2.0**-40]], dtype=torch.float64)
    exact = RULES["original"](w)
    assert float(exact[0, 2, 1]) == 2.0**40
    assert torch.equal(RULES["pade"](w)[0, 2, :2], exact[0, 2, :2])
    assert float(RULES["trunc"](w)[0, 2, 1]) == 1e10
    assert float(RULES["trunc"](w)[0, 1, 2]) == -1e10
    for rule, terms in (("taylor", 101), ("power_iteration", 19)):  # degree 100, and 19 iterations
        # Almost equal eigenvalues: every term of the series is 1.
        assert float(RULES[rule](w)[0, 2, 1]) == pytest.approx(terms, rel=1e-9)

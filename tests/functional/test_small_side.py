"""Both sides of the data matrix give the same function and gradient, exactly and lean."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from module_tester import noise
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from gcpzoo.functional import covariance, matrix_log, matrix_power, newton_schulz_sqrt
from gcpzoo.functional.newton_schulz import NewtonSchulz
from gcpzoo.functional.small_side import BLOCK, symmetric_function, symmetric_product

Function = Callable[[Tensor], Tensor]
SHAPES = [(128, 49), (64, 64), (224, 196), (70, 196), (192, 200)]  # M < d, M = d, and both with blocks


def iterated(x: Tensor) -> Tensor:
    return NewtonSchulz.apply(x, 5, True)


def textbook_isqrt(x: Tensor) -> Tensor:
    sigma = covariance(x)
    trace = sigma.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    y, z = sigma / trace, eye
    for _ in range(5):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    return y * trace.sqrt()


def textbook_root(x: Tensor) -> Tensor:
    w, u = torch.linalg.eigh(covariance(x.double()))
    w = torch.where(w > 1e-13 * w[:, -1:], w, 0)  # the root of rounding would be 1e-8
    return (u * w.sqrt()[:, None]) @ u.mT


def textbook_log(x: Tensor) -> Tensor:
    w, u = torch.linalg.eigh(covariance(x.double()) + 1e-3 * torch.eye(x.shape[1]))
    return (u * w.log()[:, None]) @ u.mT


PAIRS: list[tuple[Function, Function]] = [
    (newton_schulz_sqrt, textbook_isqrt),
    (iterated, textbook_isqrt),
    (matrix_power, textbook_root),
    (matrix_log, textbook_log),
]


def features(d: int, m: int) -> Tensor:
    g = torch.Generator().manual_seed(d * m)
    mix = torch.randn(d, d, generator=g) / d**0.5
    return (mix @ torch.randn(2, d, m, generator=g)).relu() * torch.logspace(0, -2, d)[:, None]


def value_and_gradient(f: Function, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    out = f(x)
    (grad,) = torch.autograd.grad(out, x, c.to(out.dtype))
    return out.detach(), grad


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize(("d", "m"), SHAPES)
@pytest.mark.parametrize(("f", "textbook"), PAIRS[:2])
def test_float32_roots_agree_with_the_textbook_in_float64(f: Function, textbook: Function, d: int, m: int) -> None:
    x, c = features(d, m), noise(2, d, d, seed=1)
    out, grad = value_and_gradient(f, x, c)
    exact, exact_grad = value_and_gradient(textbook, x.double(), c.double())
    assert relative(out, exact) < 1e-5
    assert relative(grad, exact_grad) < 1e-5


@pytest.mark.parametrize(("d", "m"), SHAPES)
@pytest.mark.parametrize(("f", "textbook"), PAIRS[2:])
def test_spectral_functions_agree_with_the_textbook(f: Function, textbook: Function, d: int, m: int) -> None:
    x, c = features(d, m), noise(2, d, d, seed=1)
    assert relative(f(x), textbook(x)) < 1e-6  # rounding of the float32 result
    # No reference by eigh's own gradient, which divides by gaps between null eigenvalues: a central difference instead.
    x, step = x.double(), 1e-6 * features(d, m).double().flip(0)
    _, grad = value_and_gradient(f, x, c.double())
    difference = ((textbook(x + step) - textbook(x - step)) * c).sum() / 2
    assert float((grad * step).sum()) == pytest.approx(float(difference), rel=1e-4)  # the difference's own error


@pytest.mark.parametrize(("f", "_"), PAIRS)
@pytest.mark.parametrize("m", [63, 64])
def test_the_side_changes_without_a_jump(f: Function, _: Function, m: int) -> None:
    x = features(64, m)
    wide = torch.cat([x, x], 2)  # the same covariance with twice the positions: the d×d side
    assert relative(f(x), f(wide)) < 1e-5


@pytest.mark.parametrize(("d", "m"), [(3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize("f", [f for f, _ in PAIRS])
def test_gradients_are_derivatives_on_either_side(f: Function, d: int, m: int) -> None:
    x = noise(2, d, m, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(f, x)


@pytest.mark.parametrize("f", [f for f, _ in PAIRS])
@pytest.mark.parametrize(("d", "m"), [(4, 9), (9, 4), (224, 200)])
def test_one_sample_that_is_not_finite_leaves_the_others_alone(f: Function, d: int, m: int) -> None:
    x = noise(3, d, m)
    good = f(x)
    x[1, 0, 0] = torch.nan
    bad = f(x)
    assert bad[1].isnan().any()
    assert torch.equal(bad[::2], good[::2])


@pytest.mark.parametrize("f", [f for f, _ in PAIRS])
@pytest.mark.parametrize("scale", [0, 1e-6, 1e4])
@pytest.mark.parametrize(("d", "m"), [(80, 90), (90, 80), (4, 9), (9, 4)])
def test_zero_small_and_large_features_have_finite_values_and_gradients(
    f: Function, scale: float, d: int, m: int
) -> None:
    out, grad = value_and_gradient(f, scale * noise(2, d, m), noise(2, d, d, seed=1))
    assert out.isfinite().all()
    assert grad.isfinite().all()
    if scale == 0 and f is not matrix_log:
        assert not out.any()


@pytest.mark.parametrize(("d", "m"), [(256, 49), (256, 196), (256, 784), (128, 196)])
@pytest.mark.parametrize("way", [newton_schulz_sqrt, iterated])
def test_isqrt_keeps_at_most_a_quarter_of_what_the_textbook_keeps(way: Function, d: int, m: int) -> None:
    def kept(f: Function) -> int:
        storages: dict[int, int] = {}

        def pack(t: Tensor) -> Tensor:
            storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with saved_tensors_hooks(pack, lambda t: t):
            out = f(noise(1, d, m).requires_grad_())
        del out
        return sum(storages.values())

    assert kept(way) <= 0.25 * kept(textbook_isqrt)


@pytest.mark.parametrize("n", [BLOCK, 3 * BLOCK, 3 * BLOCK + 5])
def test_symmetric_product_by_blocks_is_the_product(n: int) -> None:
    a = noise(2, n, n, dtype=torch.float64)
    a = a + a.mT
    b, c = a @ a / n, a * 0.5 + torch.eye(n)
    with torch.no_grad():
        torch.testing.assert_close(symmetric_product(a, b), a @ b)
        torch.testing.assert_close(symmetric_product(a, b, c, a), a @ b - c @ a / 2)


@pytest.mark.parametrize(("d", "m"), [(6, 4), (4, 6)])
def test_any_symmetric_function_is_differentiated_by_ordinary_autograd(d: int, m: int) -> None:
    def square(x: Tensor) -> Tensor:
        return symmetric_function(x, lambda a: a @ a, lambda a: a)

    x = noise(2, d, m, dtype=torch.float64).requires_grad_()
    torch.testing.assert_close(square(x), covariance(x) @ covariance(x))
    assert torch.autograd.gradcheck(square, x)

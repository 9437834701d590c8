"""The root by minimax polynomials: its coefficients, error, gradient and half precision."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from module_tester import HALF, noise, relative
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from gcpzoo.errors import ZooError
from gcpzoo.functional import matrix_power, minimax, minimax_sqrt, newton_schulz, newton_schulz_sqrt, square_root
from gcpzoo.functional.minimax import COEFFICIENTS, polar_root

SCRIPT = Path(__file__).parents[2] / "scripts" / "minimax_coefficients.py"
ERRORS = {3: 7.6e-3, 4: 4.1e-3, 5: 5.5e-4, 6: 1.4e-4}
SIDES = [(24, 40), (40, 24), (24, 24)]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("minimax_coefficients", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def on_roots(s: Tensor, steps: int) -> Tensor:
    """What the chain makes of square roots of eigenvalues; 1 is right."""
    for a, b, c in COEFFICIENTS[steps]:
        s = a * s + b * s**3 + c * s**5
    return s


def with_roots(s: Tensor, d: int, m: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Centered features ``(2, d, m)`` whose covariance has the square roots ``s`` of eigenvalues."""
    u = torch.linalg.qr(noise(2, d, len(s), dtype=torch.float64))[0]
    columns = noise(2, m, len(s) + 1, dtype=torch.float64, seed=1)
    columns[:, :, 0] = 1  # the mean, which is taken away
    v = torch.linalg.qr(columns)[0][:, :, 1:]
    return ((u * s) @ v.mT * m**0.5 + 0.3).to(dtype)


def falling(n: int) -> Tensor:
    """Square roots of eigenvalues that fall as those of network features do."""
    return torch.logspace(0, -2.5, n, dtype=torch.float64)


def gradients(x: Tensor, steps: int, cotangent: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    minimax_sqrt(x, steps).backward(cotangent.to(x.dtype))
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("steps", COEFFICIENTS)
def test_the_script_computes_the_table(script: ModuleType, steps: int) -> None:
    found, error = script.chain(script.BOUNDS[steps], steps)
    # The table has nine decimals.
    torch.testing.assert_close(torch.tensor(found), torch.tensor(COEFFICIENTS[steps]), rtol=0, atol=1e-8)
    assert 0.8 * ERRORS[steps] < error < ERRORS[steps]


def test_each_polynomial_of_the_script_is_at_its_largest_distance_in_four_places_in_turns(script: ModuleType) -> None:
    s = torch.linspace(0.1, 1, 10001, dtype=torch.float64)
    a, b, c = script.quintic(0.1, 1.0)
    distance = a * s + b * s**3 + c * s**5 - 1
    largest = distance.abs().max()
    signs = distance[distance.abs() > (1 - 1e-6) * largest].sign()
    assert torch.unique_consecutive(signs).tolist() == [-1, 1, -1, 1]


@pytest.mark.parametrize("steps", COEFFICIENTS)
def test_roots_above_the_bound_are_as_near_as_documented_and_smaller_ones_not_too_large(
    script: ModuleType, steps: int
) -> None:
    low = script.BOUNDS[steps]
    above = on_roots(torch.linspace(low, 1, 100_001, dtype=torch.float64), steps)
    assert (above - 1).abs().max() < ERRORS[steps]
    below = on_roots(torch.linspace(0, low, 10_001, dtype=torch.float64), steps)
    assert below.min() == 0
    assert below.max() < 1
    # Rounding may carry a root past 1: the factor of safety keeps it from running away.
    assert (on_roots(torch.linspace(1, 1.008, 101, dtype=torch.float64), steps) - 1).abs().max() < ERRORS[steps]


@pytest.mark.parametrize(("d", "m"), [*SIDES, (70, 80), (80, 70)])
@pytest.mark.parametrize("steps", COEFFICIENTS)
def test_it_is_the_exact_root_up_to_the_documented_error(script: ModuleType, steps: int, d: int, m: int) -> None:
    n = min(d, m) - 1
    s = torch.logspace(0, 0, n, dtype=torch.float64)
    s[n // 2 :] = 2 * script.BOUNDS[steps] * s.square().sum() ** 0.25  # above the bound, the norm being below this sum
    x = with_roots(s, d, m)
    assert relative(minimax_sqrt(x, steps), matrix_power(x)) < ERRORS[steps]


@pytest.mark.parametrize(("d", "m"), SIDES)
def test_more_steps_are_nearer_and_four_are_nearer_than_ten_of_newton_schulz(d: int, m: int) -> None:
    x = with_roots(falling(min(d, m) - 1), d, m)
    exact = matrix_power(x)
    errors = [relative(minimax_sqrt(x, steps), exact) for steps in COEFFICIENTS]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < relative(newton_schulz_sqrt(x, 10), exact)
    assert 15 * errors[1] < relative(newton_schulz_sqrt(x, 5), exact)


@pytest.mark.parametrize("spectrum", ["1 / i", "i**-1.5", "(i <= 49) / i", "(-i / 25).exp()", "i**-2"])
def test_four_steps_have_an_eighth_of_the_error_of_five_of_newton_schulz_or_less(spectrum: str) -> None:
    i = torch.arange(1, 257, dtype=torch.float64)
    w = eval(spectrum, {"i": i})[None]
    usual = relative(newton_schulz.polynomial(w, w, iterations=5), w.sqrt())
    assert 8 * relative(minimax.on_eigenvalues(w, w, COEFFICIENTS[4]), w.sqrt()) < usual


@pytest.mark.parametrize(("d", "m"), [(70, 80), (80, 70)])
def test_eigenvalues_and_products_give_the_same_value_and_gradient(
    d: int, m: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, cotangent = with_roots(falling(40), d, m), noise(2, d, d, dtype=torch.float64)
    value, gradient = minimax_sqrt(x), gradients(x, 4, cotangent)
    monkeypatch.setattr(minimax, "eigen_is_faster", lambda x, iterations: False)
    assert relative(minimax_sqrt(x), value) < 1e-10
    assert relative(gradients(x, 4, cotangent), gradient) < 1e-8


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("d", "m"), [(5, 8), (8, 5), (5, 5)])
def test_gradient_is_the_derivative_on_both_sides(d: int, m: int, center: bool) -> None:
    x = noise(2, d, m, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: minimax_sqrt(x, 4, center), x, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("steps", COEFFICIENTS)
@pytest.mark.parametrize("rank", [1, 4, 20])
@pytest.mark.parametrize(("d", "m"), SIDES)
def test_gradient_in_float32_survives_eigenvalues_that_are_zero(d: int, m: int, rank: int, steps: int) -> None:
    x, cotangent = with_roots(falling(rank), d, m), noise(2, d, d)
    # ∏a, 2500 for 6 steps, times float32's rounding; products of the covariance have its square.
    assert relative(gradients(x.float(), steps, cotangent), gradients(x, steps, cotangent)) < 2e-3


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("d", "m"), SIDES)
def test_a_zero_covariance_gives_zeros_with_a_finite_gradient(d: int, m: int, dtype: torch.dtype) -> None:
    x = torch.zeros(2, d, m, dtype=dtype)
    x[1] = 3  # no variance either
    x.requires_grad_()
    out = minimax_sqrt(x)
    out.sum().backward()
    assert out.dtype == dtype
    assert torch.equal(out, torch.zeros_like(out))
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("steps", COEFFICIENTS)
@pytest.mark.parametrize(("d", "m"), [*SIDES, (96, 49), (96, 196)])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)], ids=str)
def test_half_precision_loses_little_more_than_its_own_rounding(
    d: int, m: int, steps: int, dtype: torch.dtype, rounding: float
) -> None:
    x = with_roots(falling(min(d, m) - 1), d, m).to(dtype)
    exact = matrix_power(x.double())
    own = relative(minimax_sqrt(x.double(), steps), exact)
    out = minimax_sqrt(x, steps)
    assert out.dtype == dtype
    assert relative(out, exact) < own + rounding


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3)], ids=str)
@pytest.mark.parametrize(("d", "m"), SIDES)
def test_half_precision_has_the_gradient_of_float32(d: int, m: int, dtype: torch.dtype, rounding: float) -> None:
    x, cotangent = with_roots(falling(20), d, m).to(dtype), noise(2, d, d).to(dtype)
    gradient = gradients(x, 4, cotangent)
    assert gradient.dtype == dtype
    assert relative(gradient, gradients(x.double(), 4, cotangent)) < rounding


@pytest.mark.parametrize("size", [1e-6, 1e4])
def test_size_of_the_features_does_not_matter(size: float) -> None:
    x = with_roots(falling(20), 24, 40, torch.float32)
    assert relative(minimax_sqrt(x * size) / size, minimax_sqrt(x)) < 1e-5
    small, usual = (gradients(x * factor, 4, noise(2, 24, 24)) for factor in (size, 1.0))
    assert relative(small, usual) < 1e-3  # features of 1e-6 round elsewhere


def test_autocast_does_not_shorten_the_products() -> None:
    x = with_roots(falling(20), 24, 40, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = minimax_sqrt(x)
    assert torch.equal(out, minimax_sqrt(x))


def test_a_sample_that_is_not_finite_leaves_the_others_alone() -> None:
    x = with_roots(falling(20), 24, 40)
    alone = minimax_sqrt(x[1:])
    x[0, 3, 3] = torch.nan
    out = minimax_sqrt(x)
    assert out[0].isnan().any()
    assert relative(out[1:], alone) < 1e-12


@pytest.mark.parametrize(("steps", "products"), [(3, 10), (4, 13), (5, 16), (6, 19)])
def test_the_products_are_as_many_as_documented(steps: int, products: int) -> None:
    with FlopCounterMode(display=False) as counter:
        minimax_sqrt(torch.empty(1, 32, 32, device="meta"), steps)
    assert counter.get_total_flops() == products * 2 * 32**3


def test_the_backward_pass_keeps_the_features_only() -> None:
    x = with_roots(falling(20), 24, 40).requires_grad_()
    kept: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        kept.append(t)
        return t

    with saved_tensors_hooks(pack, lambda t: t):
        minimax_sqrt(x)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]


@pytest.mark.parametrize("steps", [2, 7, 4.0, True, "4"])
def test_other_numbers_of_steps_are_refused(steps: object) -> None:
    with pytest.raises(ZooError, match="steps must be 3, 4, 5 or 6, got"):
        minimax_sqrt(torch.ones(1, 2, 3), steps)  # type: ignore[arg-type]


def test_square_root_passes_its_arguments_on() -> None:
    x = with_roots(falling(20), 24, 40)
    assert torch.equal(square_root(x, "minimax", iterations=9, steps=3), minimax_sqrt(x, 3))
    assert torch.equal(square_root(x, "minimax", center=False), minimax_sqrt(x, 4, center=False))
    assert not torch.equal(minimax_sqrt(x, 4, center=False), minimax_sqrt(x))


@pytest.mark.parametrize(("d", "m"), SIDES)
def test_ordinary_autograd_through_the_products_agrees(d: int, m: int) -> None:
    x, cotangent = with_roots(falling(10), d, m).requires_grad_(), noise(2, d, d, dtype=torch.float64)
    (expected,) = torch.autograd.grad(polar_root(x, COEFFICIENTS[4]), x, cotangent)
    assert relative(gradients(x, 4, cotangent), expected) < 1e-8

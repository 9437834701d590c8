"""Exact functions of eigenvalues: options, repeated and null eigenvalues."""

from __future__ import annotations

import pytest
import torch
from module_tester import noise
from torch import Tensor

from gcpzoo.functional import matrix_log, matrix_power, newton_schulz_sqrt, spectral_function
from gcpzoo.functional.spectral import loewner, spread


@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("norm", [None, "l2", "frobenius"])
@pytest.mark.parametrize(("d", "m"), [(3, 5), (5, 3)])
def test_powers_and_their_norms_have_exact_gradients(alpha: float, norm: str | None, d: int, m: int) -> None:
    x = noise(2, d, m, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: matrix_power(x, alpha, norm), x)
    power = matrix_power(x, alpha, norm)
    if norm is not None:
        length = torch.linalg.matrix_norm(power, 2 if norm == "l2" else "fro")
        torch.testing.assert_close(length, torch.ones_like(length))


def test_power_one_is_the_covariance() -> None:
    x = noise(2, 6, 4, dtype=torch.float64)
    torch.testing.assert_close(matrix_power(x, 1.0, center=False), x @ x.mT / 4)


@pytest.mark.parametrize("m", [4, 8])
def test_repeated_eigenvalues_have_the_exact_gradient(m: int) -> None:
    q = torch.linalg.qr(noise(8, 8, dtype=torch.float64)).Q[None, :6, :m] if m == 8 else None
    x = torch.linalg.qr(noise(1, 6, 4, dtype=torch.float64)).Q if q is None else q
    x = x.clone().requires_grad_()  # orthonormal columns (rows): all non-zero eigenvalues are equal
    for f in (matrix_power, matrix_log, newton_schulz_sqrt):
        assert torch.autograd.gradcheck(lambda x, f=f: f(x, center=False), x)


@pytest.mark.parametrize("d", [3, 7])
def test_dead_channels_get_zeros_and_finite_gradients(d: int) -> None:
    x = noise(2, d, 5, dtype=torch.float64)
    x[:, -1] = 0
    x.requires_grad_()
    root = matrix_power(x)
    assert root[:, -1].abs().max() < 1e-12
    root.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_loewner_matrix_of_the_root_is_one_over_the_sum_of_roots() -> None:
    w = torch.tensor([[0.0, 0.0, 1e-9, 0.5, 0.5, 0.5 + 1e-13, 2.0]], dtype=torch.float64)
    apart = spread(w)
    torch.testing.assert_close(apart, w, rtol=1e-7, atol=0)  # moved by at most 6e-8
    expected = 1 / (w.sqrt()[:, :, None] + w.sqrt()[:, None])
    expected[:, :2, :2] = 0  # infinite: 0 by convention
    torch.testing.assert_close(loewner(apart, apart.sqrt(), 0.5 * apart.rsqrt()), expected, rtol=1e-7, atol=0)


def test_a_function_may_use_the_whole_spectrum() -> None:
    def scaled(w: Tensor, spectrum: Tensor) -> Tensor:
        return w * spectrum.square().sum(1, keepdim=True)

    for d, m in ((3, 6), (6, 3)):
        x = noise(2, d, m, dtype=torch.float64).requires_grad_()
        sigma = x @ x.mT / m
        expected = sigma * torch.linalg.matrix_norm(sigma, keepdim=True).square()
        torch.testing.assert_close(spectral_function(x, scaled, center=False), expected)
        assert torch.autograd.gradcheck(lambda x: spectral_function(x, scaled), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: matrix_power(x, 0.0), "alpha must be positive"),
        (lambda x: matrix_power(x, 0.5, "l1"), "norm must be None, 'l2' or 'frobenius'"),
        (lambda x: matrix_log(x, -1.0), "eps must be positive"),
        (lambda x: newton_schulz_sqrt(x, 0), "iterations must be at least 1"),
    ],
)
def test_arguments_out_of_range_are_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.ones(1, 2, 3))  # type: ignore[operator]

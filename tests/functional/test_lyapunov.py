"""Padé and Taylor roots, their inverses, and the Lyapunov solver."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from module_tester import noise
from torch import Tensor

from gcpzoo.functional import covariance, lyapunov_solve, lyapunov_sqrt, mpa_inv_sqrt, mpa_sqrt, mtp_inv_sqrt, mtp_sqrt

ROOTS = [mpa_sqrt, mtp_sqrt, mpa_inv_sqrt, mtp_inv_sqrt]


def matrices(condition: float, n: int = 5) -> Tensor:
    """Two symmetric matrices with eigenvalues from 1 to ``condition``, times 1 and 100."""
    g = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64))
    a = (u * torch.logspace(0, torch.tensor(condition).log10(), n, dtype=torch.float64)) @ u.mT
    return torch.stack([a, 100 * a])


@pytest.mark.parametrize("root", ROOTS)
def test_root_and_gradient_are_exact_for_well_conditioned_matrices(root: Callable[[Tensor], Tensor]) -> None:
    a = matrices(2.0).requires_grad_()
    w, u = torch.linalg.eigh(a.detach())
    exact = (u * w.pow(-0.5 if "inv" in root.__name__ else 0.5)[:, None]) @ u.mT
    # Truncated at degree 10, z reaches 0.7: 1e-3 for the polynomials, 1e-6 for the Padé approximants.
    tolerance = 1e-5 if "mpa" in root.__name__ else 1e-2
    assert torch.allclose(root(a), exact, rtol=tolerance, atol=tolerance * float(exact.abs().max()))
    if tolerance == 1e-5:
        assert torch.autograd.gradcheck(lambda a: root((a + a.mT) / 2), a, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("root", ROOTS)
def test_zero_matrix_gives_zeros_and_leaves_its_neighbour_alone(root: Callable[[Tensor], Tensor]) -> None:
    a = torch.stack([torch.zeros(5, 5, dtype=torch.float64), matrices(2.0)[0]]).requires_grad_()
    out = root(a)
    assert torch.equal(out[0], torch.zeros_like(out[0]))
    assert torch.allclose(out[1], root(a[1:])[0])
    (grad,) = torch.autograd.grad(out.sum(), a)
    assert grad.isfinite().all()


@pytest.mark.parametrize("root", ROOTS)
def test_samples_of_different_size_do_not_mix_in_the_gradient(root: Callable[[Tensor], Tensor]) -> None:
    a = matrices(30.0).requires_grad_()
    (both,) = torch.autograd.grad(root(a).sum(), a)
    for i in range(2):
        alone = a[i : i + 1].detach().requires_grad_()
        (grad,) = torch.autograd.grad(root(alone).sum(), alone)
        assert torch.allclose(both[i : i + 1], grad, rtol=1e-10)


def test_solver_solves_the_lyapunov_equation() -> None:
    q = matrices(3.0)
    g = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = lyapunov_solve(q, g, torch.linalg.matrix_norm(q, keepdim=True), steps=20)
    assert torch.allclose(q @ x + x @ q, g, atol=1e-10)


def value_and_gradient(root: Callable[[Tensor], Tensor], x: Tensor, c: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = root(x)
    return [out.detach(), *torch.autograd.grad(out, x, c.to(x.dtype))]


@pytest.mark.parametrize(("taylor", "root"), [(False, mpa_sqrt), (True, mtp_sqrt)])
@pytest.mark.parametrize(("d", "m"), [(128, 49), (64, 63), (64, 64), (70, 196)])
def test_either_side_of_the_data_gives_the_published_root_and_gradient(
    taylor: bool, root: Callable[[Tensor], Tensor], d: int, m: int
) -> None:
    g = torch.Generator().manual_seed(d * m)
    x = (torch.randn(d, d, generator=g) @ torch.randn(2, d, m, generator=g) / d**0.5).relu()
    x, c = x * torch.logspace(0, -2, d)[:, None], torch.randn(2, d, d, generator=g)
    exact = value_and_gradient(lambda x: root(covariance(x)), x.double(), c)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
        found = value_and_gradient(lambda x: lyapunov_sqrt(x, taylor), x.to(dtype), c)
        for a, b in zip(found, exact):
            assert float((a.double() - b).norm() / b.norm()) < tolerance


@pytest.mark.parametrize("taylor", [False, True])
@pytest.mark.parametrize(("d", "m"), [(9, 4), (4, 9)])
def test_featureless_map_gives_zeros_and_leaves_its_neighbour_alone(taylor: bool, d: int, m: int) -> None:
    x = noise(2, d, m, dtype=torch.float64)
    x[0] = 1.0
    out, grad = value_and_gradient(lambda x: lyapunov_sqrt(x, taylor), x, torch.ones(2, d, d))
    assert not out[0].any()
    assert grad.isfinite().all()
    torch.testing.assert_close(out[1:], lyapunov_sqrt(x[1:], taylor))


def test_anything_but_a_batch_of_square_matrices_is_refused() -> None:
    for shape in ((3, 3), (2, 3, 4), (2, 0, 0)):
        with pytest.raises(ValueError, match=r"expected matrices \(B, d, d\)"):
            mpa_sqrt(torch.zeros(shape))

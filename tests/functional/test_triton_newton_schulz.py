"""The Triton kernel in Triton's interpreter, on the CPU: its arithmetic, not its speed."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch
from module_tester import noise

from gcpzoo.functional.newton_schulz import iterate

pytest.importorskip("triton", reason="Triton is not installed here; the PyTorch products are used instead")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    return importlib.reload(importlib.import_module("gcpzoo.functional.triton_newton_schulz"))


@pytest.mark.parametrize("n", [5, 16, 49])
@pytest.mark.parametrize("iterations", [1, 2, 5])
@pytest.mark.parametrize("divided", [False, True])
def test_kernel_gives_value_and_derivative_of_the_chain(
    kernel: ModuleType, n: int, iterations: int, divided: bool
) -> None:
    a = noise(2, n, 2 * n)
    a = a @ a.mT
    a /= a.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    direction = noise(2, n, n, seed=1)
    direction = direction + direction.mT
    value, derivative = kernel.iterate(a, iterations, divided, direction)
    expected, expected_derivative = iterate(a, iterations, divided, direction)
    assert expected_derivative is not None
    # float32 in another order
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(derivative, expected_derivative, rtol=1e-4, atol=1e-4)
    alone, nothing = kernel.iterate(a, iterations, divided)
    assert torch.equal(alone, value)
    assert nothing is None


def test_three_products_in_bfloat16_make_up_for_most_of_its_rounding(kernel: ModuleType) -> None:
    a = noise(2, 49, 98)
    a = a @ a.mT
    a /= a.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    direction = noise(2, 49, 49, seed=1)
    direction = direction + direction.mT
    expected = iterate(a.double(), 5, False, direction.double())
    for found, exact in zip(kernel.iterate(a, 5, False, direction, "bf16x3"), expected):
        assert exact is not None
        error = float((found - exact).norm() / exact.norm())
        # One bfloat16 rounding of the input alone is 2e-3; the interpreter cuts digits off, which gives 7e-5.
        assert 1e-6 < error < 2e-4


def test_kernel_is_off_unless_asked_for_and_never_on_the_cpu(
    kernel: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel.precision(torch.eye(4)[None]) is None
    monkeypatch.setenv("GCPZOO_TRITON", "bf16x3")
    assert kernel.precision(torch.eye(4)[None]) is None
    monkeypatch.setenv("GCPZOO_TRITON", "")
    assert kernel.precision(torch.eye(4)[None]) is None


def test_matrices_above_the_limit_are_refused(kernel: ModuleType) -> None:
    with pytest.raises(ValueError, match="at most 256 rows, got 257"):
        kernel.iterate(torch.zeros(1, 257, 257), 5, False)


@pytest.mark.parametrize(("precision", "rows"), [("bf16x3", 128), ("tf32x3", 64), ("tf32", 64)])
def test_larger_matrices_than_can_be_launched_take_the_products(
    precision: str, rows: int, kernel: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnDevice:
        is_cuda, dtype = True, torch.float32

        def __init__(self, n: int) -> None:
            self.shape = (1, n, n)

    monkeypatch.setenv("GCPZOO_TRITON", precision)
    assert kernel.precision(OnDevice(rows)) == precision
    assert kernel.precision(OnDevice(rows + 1)) is None
